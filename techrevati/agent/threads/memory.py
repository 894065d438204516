"""Threads in the memory of one process: for tests, for trying things, and as the other stores' measure."""

from collections.abc import Sequence
from threading import Lock

from msgspec.structs import replace

from techrevati.agent.threads.changeset import ThreadChangeSet
from techrevati.agent.threads.errors import HistoryGone, ThreadExists, ThreadNotFound
from techrevati.agent.threads.history import Dated, thread_at
from techrevati.agent.threads.ids import Clock, checked_id, unix_ms
from techrevati.agent.threads.index import indexed
from techrevati.agent.threads.queries import (
    FIRST_MESSAGES,
    FIRST_RUNS,
    FIRST_THREADS,
    MessagePage,
    MessageQuery,
    Page,
    RunQuery,
    ThreadListQuery,
    newest_active,
    page_of,
    page_of_messages,
    page_of_runs,
)
from techrevati.agent.threads.runs import RunRecord
from techrevati.agent.threads.store import Loaded, Precondition, ThreadHistory, ThreadStore, ThreadSync, held_to
from techrevati.agent.threads.thread import Thread, ThreadLog, stored_whole


class _Stored:
    """A thread, and how it came to be since it was last stored whole."""

    __slots__ = ("changes", "log", "origin", "runs")

    def __init__(self, origin: Thread, runs: dict[str, RunRecord]) -> None:
        self.origin, self.log = origin, ThreadLog(origin)
        self.changes: list[Dated] = []
        self.runs = runs

    @property
    def oldest(self) -> int:
        return self.origin.metadata.version


class InMemoryThreadStore(ThreadStore, ThreadSync, ThreadHistory):
    """Safe for threads and tasks alike: nothing inside the lock waits.

    What is stored is shared with those who load it: records are frozen, and documents are read only.
    """

    def __init__(self, *, clock: Clock = unix_ms) -> None:
        self._clock, self._lock = clock, Lock()
        self._threads: dict[str, _Stored] = {}
        self._run_homes: dict[str, str] = {}

    def _known(self, thread_id: str) -> _Stored:
        stored = self._threads.get(thread_id)
        if stored is None:
            raise ThreadNotFound(thread_id)
        return stored

    async def load(self, thread_id: str) -> Loaded | None:
        with self._lock:
            stored = self._threads.get(thread_id)
            return None if stored is None else Loaded(stored.log.thread(), stored.log.version)

    async def load_at(self, thread_id: str, version: int) -> Thread:
        """Give a thread as it was at a version.

        Raises:
            ThreadNotFound, NoSuchVersion, HistoryGone: as they say.
        """
        with self._lock:
            stored = self._known(thread_id)
            return thread_at(stored.origin, stored.changes, version)

    async def load_messages(self, thread_id: str, query: MessageQuery = FIRST_MESSAGES) -> MessagePage:
        with self._lock:
            return page_of_messages(self._known(thread_id).log.messages, query)

    async def message_count(self, thread_id: str) -> int:
        with self._lock:
            return len(self._known(thread_id).log.messages)

    async def list_threads(self, query: ThreadListQuery = FIRST_THREADS) -> Page[str]:
        with self._lock:
            found = sorted(name for name, stored in self._threads.items() if _is_listed(stored, query))
            return page_of(found, query.offset, query.limit)

    async def load_run(self, run_id: str) -> RunRecord | None:
        with self._lock:
            return self._run(run_id)

    def _run(self, run_id: str) -> RunRecord | None:
        home = self._run_homes.get(run_id)
        return None if home is None else self._threads[home].runs[run_id]

    async def list_runs(self, query: RunQuery = FIRST_RUNS) -> Page[RunRecord]:
        with self._lock:
            if query.thread_id is not None:
                stored = self._threads.get(query.thread_id)
                return page_of_runs(stored.runs.values() if stored else (), query)
            return page_of_runs((run for stored in self._threads.values() for run in stored.runs.values()), query)

    async def active_run_for_thread(self, thread_id: str) -> RunRecord | None:
        with self._lock:
            stored = self._threads.get(thread_id)
            return newest_active(stored.runs.values()) if stored else None

    async def create(self, thread: Thread) -> int:
        checked_id(thread.id)
        with self._lock:
            if thread.id in self._threads:
                raise ThreadExists(thread.id)
            new = replace(thread, metadata=replace(thread.metadata, version=0))
            self._threads[thread.id] = _Stored(stored_whole(new, None, self._clock()), {})
            return 0

    async def append(self, thread_id: str, change: ThreadChangeSet, precondition: Precondition) -> int:
        with self._lock:
            stored = self._known(thread_id)
            held_to(precondition, thread_id, stored.log.version)
            if change.is_empty:
                return stored.log.version
            now = self._clock()
            record = indexed(self._run(change.run_id), thread_id, change, now)
            stored.changes.append((stored.log.add(change, now), now))
            if record is not None:
                stored.runs[change.run_id] = record
                self._run_homes[change.run_id] = thread_id
            return stored.log.version

    async def save(self, thread: Thread) -> int:
        checked_id(thread.id)
        with self._lock:
            known = self._threads.get(thread.id)
            whole = stored_whole(thread, None if known is None else known.log.version, self._clock())
            self._threads[thread.id] = _Stored(whole, known.runs if known else {})
            return whole.metadata.version

    async def delete(self, thread_id: str) -> None:
        with self._lock:
            stored = self._threads.pop(thread_id, None)
            for run_id in stored.runs if stored else ():
                self._run_homes.pop(run_id, None)

    async def load_deltas(self, thread_id: str, after_version: int) -> Sequence[ThreadChangeSet]:
        with self._lock:
            stored = self._known(thread_id)
            if after_version < stored.oldest:
                raise HistoryGone(thread_id, after_version, stored.oldest)
            return [change for change, _ in stored.changes[after_version - stored.oldest :]]


def _is_listed(stored: _Stored, query: ThreadListQuery) -> bool:
    return (query.resource_id is None or stored.origin.resource_id == query.resource_id) and (
        query.parent_thread_id is None or stored.log.parent_thread_id == query.parent_thread_id
    )
