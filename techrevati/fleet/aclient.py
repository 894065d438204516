"""The client for an event loop: what `client.Client` does, one `await` apart.

run = await AsyncClient(url, fleet="newsroom").start("writer", {...})
async for event in run.events(): ...
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from techrevati.fleet import registry
from techrevati.fleet.asking import aask
from techrevati.fleet.athreads import AsyncThread
from techrevati.fleet.budgets import BudgetLine, aread_books
from techrevati.fleet.cards import Card
from techrevati.fleet.client import LOOK_AGAIN
from techrevati.fleet.events import Cursor, page, reading
from techrevati.fleet.forking import ForkOptions, last_version_of
from techrevati.fleet.gates import GateLine, gates_key, line_of, look_calls, unasked
from techrevati.fleet.listen import AsyncListener
from techrevati.fleet.listing import ListOptions, RunFilter, RunPage, listing, reading_children, record_of
from techrevati.fleet.questions import Question, reading_questions
from techrevati.fleet.results import NotFinished, output_of
from techrevati.fleet.ringing import ring_for
from techrevati.fleet.settings import Settings, load_settings, seconds
from techrevati.fleet.starting import Duration, Start, StartOptions, decide_call, run_keys, start_call, steer_call
from techrevati.fleet.versions import CheckpointRecord
from techrevati.store import calls
from techrevati.store.aio import AsyncStore
from techrevati.store.budgets import AsyncBudget
from techrevati.store.errors import RunNotFound
from techrevati.store.gates.records import Outdated
from techrevati.store.keys import roles_key
from techrevati.store.records import Event, RunRecord


class AsyncRun:
    """A handle on one run; see `client.Run` for what each method gives and raises."""

    def __init__(self, client: "AsyncClient", run_id: str, *, created: bool = True) -> None:
        self._client, self.id, self.created = client, run_id, created

    async def status(self) -> RunRecord:
        return await self._client.record(self.id)

    async def result(self, timeout: Duration | None = None) -> Any:
        client = self._client
        deadline = None if timeout is None else time.monotonic() + seconds(timeout, "timeout")
        keys = run_keys(client.fleet, await client.open(), self.id)
        async with client.listener.waiting(keys.wake(self.id)) as spoke:
            while True:
                spoke.clear()
                record = await client.record(self.id)
                if record.status.is_terminal:
                    return output_of(record)
                left = LOOK_AGAIN if deadline is None else min(LOOK_AGAIN, deadline - time.monotonic())
                if left <= 0:
                    raise NotFinished(self.id, record.status.value)
                await _spoken(spoke, left)

    async def events(self, *, after: str | None = None, follow: bool = True) -> AsyncIterator[Event]:
        client, cursor = self._client, Cursor.parse(after)
        keys = run_keys(client.fleet, await client.open(), self.id)
        async with client.listener.waiting(keys.wake(self.id)) as spoke:
            while True:
                spoke.clear()
                found = page(self.id, cursor, await client.store.commands(reading(keys, self.id, cursor)))
                if not found.known:
                    raise RunNotFound(self.id)
                cursor = found.cursor
                for event in found.events:
                    yield event
                if found.ended or (not follow and not found.events):
                    return
                if not found.events:
                    await _spoken(spoke, LOOK_AGAIN)

    async def cancel(self, reason: str = "cancelled by the caller") -> str:
        c = self._client
        keys, grace = run_keys(c.fleet, await c.open(), self.id), round(c.settings.cancel_grace * 1e6)
        return await c.store.run(calls.cancel(keys, self.id, reason, grace))

    async def decide(
        self,
        call_id: str,
        action: Literal["resume", "cancel"] = "resume",
        payload: Any = None,
        *,
        decision_id: str | None = None,
    ) -> bool:
        c = self._client
        return await c.store.run(
            decide_call(c.fleet, await c.open(), c.settings, self.id, call_id, action, payload, decision_id)
        )

    async def questions(self) -> list[Question]:
        c = self._client
        return await aask(c.store, reading_questions(run_keys(c.fleet, await c.open(), self.id), self.id))

    async def steer(self, message: Any) -> bool:
        c = self._client
        return await c.store.run(steer_call(c.fleet, await c.open(), c.settings, self.id, message))

    async def retry(self) -> str:
        c = self._client
        return await c.store.run(calls.retry(run_keys(c.fleet, await c.open(), self.id), self.id))

    async def children(self) -> list[RunRecord]:
        c = self._client
        return await aask(c.store, reading_children(run_keys(c.fleet, await c.open(), self.id), self.id))

    async def fork(self, at: int | None = None, **options: Unpack[ForkOptions]) -> "AsyncRun":
        c = self._client
        keys = run_keys(c.fleet, await c.open(), self.id)
        tenant, thread_id, newest = await aask(c.store, last_version_of(keys, self.id))
        return await c.thread(thread_id, tenant=tenant).fork(newest if at is None else at, **options)

    def __repr__(self) -> str:
        return f"AsyncRun({self.id!r})"


async def _spoken(spoke: asyncio.Event, wait: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait):
            await spoke.wait()


class AsyncClient:
    """A fleet's front door for one event loop; connects on first use."""

    def __init__(
        self,
        url: str | None = None,
        *,
        fleet: str,
        settings: Settings | None = None,
        cards: Sequence[Card] = (),
    ) -> None:
        given = settings or load_settings(**({"redis_url": url} if url else {}))
        self.settings = given if url is None else given.model_copy(update={"redis_url": url})
        self.fleet = fleet
        self.store = AsyncStore(self.settings.redis_url, patience=5.0, ring=ring_for(fleet, self.settings))
        self.listener = AsyncListener(self.settings.redis_url)
        self._declared = list(cards)
        self._cards: dict[str, Card] = {}
        self._partitions = 0
        # From anywhere, so that clients that start one run each do not all begin with partition 0.
        self._turns = itertools.count(random.randrange(4096))

    async def open(self) -> int:
        """Give how many partitions the fleet has; read (or pinned) once."""
        if not self._partitions:
            pinned = "partitions" in self.settings.model_fields_set
            commands = registry.opening(self.fleet, self.settings.partitions)
            replies = await self.store.commands([*commands, *registry.declare(self.fleet, self._declared)])
            self._partitions = registry.opened(self.fleet, replies, self.settings.partitions, pinned=pinned)
        return self._partitions

    async def cards(self, *wanted: str) -> dict[str, Card]:
        if not self._cards or any(agent not in self._cards for agent in wanted):
            self._cards = registry.cards_of(await self.store.command("HGETALL", roles_key(self.fleet)))
        return self._cards

    async def start(self, agent: str, input: Any = None, **options: Unpack[StartOptions]) -> AsyncRun:
        return (await self.start_many([{"agent": agent, "input": input, **options}]))[0]

    async def start_many(self, starts: Sequence[Start]) -> list[AsyncRun]:
        partitions = await self.open()
        known = await self.cards(*(one["agent"] for one in starts))
        built = [start_call(self.fleet, partitions, self.settings, known, one, next(self._turns)) for one in starts]
        started = await asyncio.gather(*(self.store.run(call) for call in built))
        return [AsyncRun(self, one.run_id, created=one.created) for one in started]

    async def run(self, run_id: str) -> AsyncRun:
        run_keys(self.fleet, await self.open(), run_id)
        return AsyncRun(self, run_id)

    def handle(self, run_id: str, *, created: bool) -> AsyncRun:
        return AsyncRun(self, run_id, created=created)

    async def record(self, run_id: str) -> RunRecord:
        key = run_keys(self.fleet, await self.open(), run_id).run(run_id)
        record = record_of(run_id, await self.store.command("HGETALL", key))
        if record is None:
            raise RunNotFound(run_id)
        return record

    async def runs(self, *, after: str | None = None, limit: int = 100, **options: Unpack[ListOptions]) -> RunPage:
        wanted = RunFilter.of(options)
        return await aask(self.store, listing(self.fleet, await self.open(), wanted, after, limit))

    async def list_runs(self, *, limit: int = 100, **options: Unpack[ListOptions]) -> list[RunRecord]:
        page = await self.runs(limit=limit, **options)
        found = page.runs
        while page.cursor is not None and len(found) < limit:
            page = await self.runs(after=page.cursor, limit=limit - len(found), **options)
            found += page.runs
        return found

    def thread(self, thread_id: str, *, tenant: str = "default") -> AsyncThread:
        return AsyncThread(self, thread_id, tenant)

    async def checkpoints(
        self, thread_id: str, *, tenant: str = "default", before: int | None = None, limit: int = 100
    ) -> list[CheckpointRecord]:
        return await self.thread(thread_id, tenant=tenant).checkpoints(before=before, limit=limit)

    async def gates(self) -> list[GateLine]:
        found = []
        for name, call in look_calls(self.fleet, await self.store.command("SMEMBERS", gates_key(self.fleet))):
            try:
                found.append(line_of(name, await self.store.run(call)))
            except Outdated:
                found.append(unasked(name))
        return found

    async def budgets(self, tenant: str | None = None, *levels: str) -> list[BudgetLine]:
        return await aread_books(AsyncBudget(self.store, self.fleet), tenant, levels)

    async def close(self) -> None:
        await self.listener.close()
        await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
