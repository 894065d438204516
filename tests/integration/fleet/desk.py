"""A fleet served in this process: what a worker has, without Celery and with a hand on each ticket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from techrevati.fleet import Client, Fleet, Settings
from techrevati.fleet.client import Run
from techrevati.fleet.worker import WorkerRuntime
from techrevati.store.records import RunRecord


class Desk:
    """One worker of one role, and the application's client."""

    def __init__(self, fleet: Fleet, role: str, runtime: WorkerRuntime, client: Client) -> None:
        self.fleet, self.role, self.runtime, self.client = fleet, role, runtime, client

    async def start(self, input: Any = None, **options: Any) -> Run:
        return await asyncio.to_thread(self.client.start, self.role, input, **options)

    async def ticket(self, run: Run) -> None:
        """Serve one ticket for the partition of a run."""
        await self.runtime.serve(self.role, self.client.keys(run.id).partition, lambda: False)

    async def record(self, run: Run) -> RunRecord:
        return await asyncio.to_thread(run.status)

    async def events(self, run: Run) -> list[tuple[str, Any]]:
        found = await asyncio.to_thread(lambda: list(run.events(follow=False)))
        return [(event.type, event.data) for event in found]

    async def served(self, run: Run) -> RunRecord:
        await self.ticket(run)
        return await self.record(run)


@asynccontextmanager
async def desk(fleet: Fleet, url: str, role: str = "writer", **settings: Any) -> AsyncIterator[Desk]:
    """Serve a role of a fleet for as long as the block lasts."""
    given = Settings(redis_url=url, **settings)
    runtime = WorkerRuntime(
        fleet.name,
        role,
        fleet.served,
        fleet.models,
        given,
        template=lambda role, partition: "",
        gates=fleet.gates,
        costs=fleet.costs,
        budget=fleet.spending,
        saving=fleet.saving,
        telling=fleet.telling,
    )
    await runtime.start(asyncio.get_running_loop(), None)
    try:
        with Client(fleet=fleet.name, settings=given) as client:
            yield Desk(fleet, role, runtime, client)
    finally:
        await runtime.stop()


async def until(true: Callable[[], Any], timeout: float = 10.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.005)
