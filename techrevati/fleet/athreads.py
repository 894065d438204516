"""A handle on one thread, for an event loop: what `threads.Thread` does, one `await` apart."""

from typing import TYPE_CHECKING, Any, Unpack

from techrevati.fleet.asking import Plan, T, aask
from techrevati.fleet.forking import ForkOptions, fork_plan
from techrevati.fleet.listing import RunFilter, RunPage, listing
from techrevati.fleet.versions import (
    CheckpointRecord,
    MessagePage,
    ThreadRecord,
    as_values,
    reading_checkpoints,
    reading_messages,
    reading_state,
    reading_thread,
    reading_version,
)
from techrevati.store import thread_calls
from techrevati.store.keys import PartitionKeys, check_tenant, partition_of

if TYPE_CHECKING:
    from techrevati.fleet.aclient import AsyncClient, AsyncRun


class AsyncThread:
    """One conversation of one tenant; see `threads.Thread` for what each method gives and raises."""

    def __init__(self, client: "AsyncClient", thread_id: str, tenant: str = "default") -> None:
        self._client, self.id, self.tenant = client, thread_id, check_tenant(tenant)

    async def _keys(self) -> PartitionKeys:
        return PartitionKeys(self._client.fleet, partition_of(self.tenant, self.id, await self._client.open()))

    async def _ask(self, plan: Plan[T]) -> T:
        return await aask(self._client.store, plan)

    async def status(self) -> ThreadRecord:
        return await self._ask(reading_thread(await self._keys(), self.tenant, self.id))

    async def messages(self, *, at: int | None = None, after: int | None = None, limit: int = 100) -> MessagePage:
        return await self._ask(reading_messages(await self._keys(), self.tenant, self.id, at, after, limit))

    async def state(self, *, at: int | None = None) -> dict[str, Any]:
        keys = await self._keys()

        def plan() -> Plan[dict[str, Any]]:
            entry = yield from reading_version(keys, self.tenant, self.id, at)
            return as_values((yield from reading_state(keys, self.tenant, self.id, entry)))

        return await self._ask(plan())

    async def checkpoints(self, *, before: int | None = None, limit: int = 100) -> list[CheckpointRecord]:
        return await self._ask(reading_checkpoints(await self._keys(), self.tenant, self.id, before, limit))

    async def runs(self, *, after: str | None = None, limit: int = 100) -> RunPage:
        c = self._client
        wanted = RunFilter.of({"tenant": self.tenant, "thread_id": self.id})
        return await self._ask(listing(c.fleet, await c.open(), wanted, after, limit))

    async def fork(self, at: int | None = None, **options: Unpack[ForkOptions]) -> "AsyncRun":
        c = self._client
        partitions, cards = await c.open(), await c.cards(options.get("agent") or "")
        plan = fork_plan(c.fleet, partitions, c.settings, cards, self.tenant, self.id, at, options)
        started = await c.store.run(await self._ask(plan))
        return c.handle(started.run_id, created=started.created)

    async def delete(self, *, force: bool = False) -> bool:
        keys, store = await self._keys(), self._client.store
        done = first = await store.run(thread_calls.delete(keys, self.tenant, self.id, force=force))
        while done.more:
            done = await store.run(thread_calls.forget(keys))
        return first.known

    def __repr__(self) -> str:
        return f"AsyncThread({self.id!r}, tenant={self.tenant!r})"
