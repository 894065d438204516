"""Going back: a thread as it was, and another that goes on from there.

origin (as created or saved) ──change 1──▶ ──change 2──▶ … ──▶ version n
                                               └─fork─▶ a thread of its own
"""

from collections.abc import Iterable, Sequence
from itertools import islice

from msgspec.structs import replace

from techrevati.agent.state.document import apply
from techrevati.agent.state.registry import NO_LATTICES, LatticeRegistry
from techrevati.agent.state.scope import ScopeRegistry, cleanup_for_next_run
from techrevati.agent.threads.changeset import ThreadChangeSet
from techrevati.agent.threads.errors import HistoryGone, NoSuchVersion
from techrevati.agent.threads.ids import checked_id
from techrevati.agent.threads.thread import Thread, ThreadLog, ThreadMetadata

Dated = tuple[ThreadChangeSet, int]
"""A change, and when it was written (unix ms)."""


def thread_at(origin: Thread, changes: Sequence[Dated], version: int) -> Thread:
    """Give a thread as it was at a version, from the version it was stored whole and the changes since.

    Raises:
        HistoryGone, NoSuchVersion: the changes do not reach there.
    """
    oldest = origin.metadata.version
    if version < oldest:
        raise HistoryGone(origin.id, version, oldest)
    if version > oldest + len(changes):
        raise NoSuchVersion(origin.id, version, oldest + len(changes))
    return _grown(origin, islice(changes, version - oldest))


def _grown(origin: Thread, changes: Iterable[Dated]) -> Thread:
    log = ThreadLog(origin)
    for change, now_ms in changes:
        log.add(change, now_ms)
    return log.thread()


def fork(
    thread: Thread,
    thread_id: str,
    *,
    now_ms: int,
    scopes: ScopeRegistry | None = None,
    registry: LatticeRegistry = NO_LATTICES,
) -> Thread:
    """Give a new thread that goes on from another as it stands (`thread_at` gives it as it stood).

    It has the same messages and state, folded, and remembers where it came from in its metadata.  What
    belongs to the run that was under way is left behind; calls that wait for a decision wait in the fork too.

    Raises:
        InvalidId: `thread_id` cannot be stored under.
    """
    state = thread.rebuild_state(registry)
    left = cleanup_for_next_run(state, scopes or ScopeRegistry(), new_user_input=False)
    source = {"thread_id": thread.id, "version": thread.metadata.version}
    return replace(
        thread,
        id=checked_id(thread_id),
        state=apply(state, left),
        patches=(),
        metadata=ThreadMetadata(created_at=now_ms, updated_at=now_ms, extra={**thread.metadata.extra, "fork": source}),
    )
