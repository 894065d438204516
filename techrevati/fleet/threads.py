"""A handle on one thread, for code that may block: read it at any version, fork it, delete it.

client.thread("essay-42") ──▶ Thread ──▶ messages, state, checkpoints, runs, fork, delete
"""

from typing import TYPE_CHECKING, Any, Unpack

from techrevati.fleet.asking import Plan, T, ask
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
    from techrevati.fleet.client import Client, Run


class Thread:
    """One conversation of one tenant; cheap, and nothing is read before it is asked.

    Every method raises ThreadNotFound if the tenant has no such thread, and VersionGone for a version that is not
    kept (`TECHREVATI_KEEP_CHECKPOINTS`) or never was.
    """

    def __init__(self, client: "Client", thread_id: str, tenant: str = "default") -> None:
        self._client, self.id, self.tenant = client, thread_id, check_tenant(tenant)

    @property
    def _keys(self) -> PartitionKeys:
        return PartitionKeys(self._client.fleet, partition_of(self.tenant, self.id, self._client.partitions))

    def _ask(self, plan: Plan[T]) -> T:
        return ask(self._client.store, plan)

    def status(self) -> ThreadRecord:
        """Give what the store knows of the thread now."""
        return self._ask(reading_thread(self._keys, self.tenant, self.id))

    def messages(self, *, at: int | None = None, after: int | None = None, limit: int = 100) -> MessagePage:
        """Give a page of the conversation, the oldest first; `at` is a version, `after` the page's cursor."""
        return self._ask(reading_messages(self._keys, self.tenant, self.id, at, after, limit))

    def state(self, *, at: int | None = None) -> dict[str, Any]:
        """Give the state, now or as of a version."""

        def plan() -> Plan[dict[str, Any]]:
            entry = yield from reading_version(self._keys, self.tenant, self.id, at)
            return as_values((yield from reading_state(self._keys, self.tenant, self.id, entry)))

        return self._ask(plan())

    def checkpoints(self, *, before: int | None = None, limit: int = 100) -> list[CheckpointRecord]:
        """Give the versions that are kept, the newest first."""
        return self._ask(reading_checkpoints(self._keys, self.tenant, self.id, before, limit))

    def runs(self, *, after: str | None = None, limit: int = 100) -> RunPage:
        """Give the thread's runs, the newest first."""
        c = self._client
        wanted = RunFilter.of({"tenant": self.tenant, "thread_id": self.id})
        return self._ask(listing(c.fleet, c.partitions, wanted, after, limit))

    def fork(self, at: int | None = None, **options: Unpack[ForkOptions]) -> "Run":
        """Make a thread of its own from a version (the newest, if `at` is not given), and start a run on it.

        The messages and the state are those of the version; the source stays as it is.  Without `input` the fork
        goes on as its source would have: same input, next turn, same agent.

        Raises:
            ForkUnclear, UnknownRole, IdempotencyConflict, and what `start` refuses.
        """
        c = self._client
        plan = fork_plan(
            c.fleet, c.partitions, c.settings, c.cards(options.get("agent") or ""), self.tenant, self.id, at, options
        )
        started = c.store.run(self._ask(plan))
        return c.handle(started.run_id, created=started.created)

    def delete(self, *, force: bool = False) -> bool:
        """Delete the thread with all its runs and sub-agents; False if there was none.

        Gone at once; the records of very many runs follow, and the sweep goes on if this process does not.

        Raises:
            ThreadInUse: a run is active on it, and `force` (which revokes it) was not given.
        """
        keys, store = self._keys, self._client.store
        done = first = store.run(thread_calls.delete(keys, self.tenant, self.id, force=force))
        while done.more:
            done = store.run(thread_calls.forget(keys))
        return first.known

    def __repr__(self) -> str:
        return f"Thread({self.id!r}, tenant={self.tenant!r})"
