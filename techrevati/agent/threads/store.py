"""What a store of threads does, whatever it is built on.

load ─▶ (thread, version) ─▶ decide ─▶ append(changeset, Exact(version)) ─▶ version + 1, or VersionConflict
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from techrevati.agent.threads.changeset import ThreadChangeSet
from techrevati.agent.threads.errors import VersionConflict
from techrevati.agent.threads.queries import (
    FIRST_MESSAGES,
    FIRST_RUNS,
    FIRST_THREADS,
    MessagePage,
    MessageQuery,
    Page,
    RunQuery,
    ThreadListQuery,
)
from techrevati.agent.threads.runs import RunRecord
from techrevati.agent.threads.thread import Thread


class Loaded(NamedTuple):
    thread: Thread
    version: int


@dataclass(frozen=True, slots=True)
class Exact:
    """Write only if the thread is still at this version."""

    version: int


class AnyVersion:
    """Write whatever the version.  The runtime never does."""

    __slots__ = ()


ANY_VERSION = AnyVersion()
Precondition = Exact | AnyVersion


def held_to(precondition: Precondition, thread_id: str, actual: int) -> None:
    """Check a version before a write.

    Raises:
        VersionConflict: it is not the one expected.
    """
    if isinstance(precondition, Exact) and precondition.version != actual:
        raise VersionConflict(thread_id, precondition.version, actual)


class ThreadReader(Protocol):
    """Reads.  A store without an index of runs keeps the answers given here."""

    async def load(self, thread_id: str) -> Loaded | None: ...

    async def load_messages(self, thread_id: str, query: MessageQuery = FIRST_MESSAGES) -> MessagePage:
        """Raises ThreadNotFound."""
        ...

    async def message_count(self, thread_id: str) -> int:
        """Raises ThreadNotFound."""
        ...

    async def list_threads(self, query: ThreadListQuery = FIRST_THREADS) -> Page[str]: ...

    async def load_thread(self, thread_id: str) -> Thread | None:
        loaded = await self.load(thread_id)
        return None if loaded is None else loaded.thread

    async def list(self) -> Sequence[str]:
        """Give the ids of all threads."""
        found: list[str] = []
        while True:
            page = await self.list_threads(ThreadListQuery(offset=len(found), limit=200))
            found.extend(page.items)
            if not page.has_more:
                return found

    async def load_run(self, run_id: str) -> RunRecord | None:
        return None

    async def list_runs(self, query: RunQuery = FIRST_RUNS) -> Page[RunRecord]:
        return Page((), 0, False)

    async def active_run_for_thread(self, thread_id: str) -> RunRecord | None:
        """Give the newest run of the thread that is not done."""
        return None


class ThreadWriter(ThreadReader, Protocol):
    """Writes; each happens whole or not at all."""

    async def create(self, thread: Thread) -> int:
        """Store a new thread; its version is 0.

        Raises:
            ThreadExists, InvalidId: as they say.
        """
        ...

    async def append(self, thread_id: str, change: ThreadChangeSet, precondition: Precondition) -> int:
        """Add a change, and what it says of its run to the index; gives the new version.

        An empty change is not written: the version stays.

        Raises:
            ThreadNotFound, VersionConflict: as they say.
        """
        ...

    async def save(self, thread: Thread) -> int:
        """Store a thread whole, new or instead of what there is; gives its version, which never goes back."""
        ...

    async def delete(self, thread_id: str) -> None:
        """Forget a thread and its runs; nothing there, nothing happens."""
        ...


class ThreadSync(Protocol):
    """Following a thread."""

    async def load_deltas(self, thread_id: str, after_version: int) -> Sequence[ThreadChangeSet]:
        """Give the changes since a version, in order, without the messages that were known before.

        Raises:
            ThreadNotFound, HistoryGone: as they say.
        """
        ...


class ThreadHistory(Protocol):
    """Going back in a thread."""

    async def load_at(self, thread_id: str, version: int) -> Thread:
        """Give a thread as it was at a version.

        Raises:
            ThreadNotFound, NoSuchVersion, HistoryGone: as they say.
        """
        ...


class ThreadStore(ThreadWriter, Protocol):
    """All of it."""
