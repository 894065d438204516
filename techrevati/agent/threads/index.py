"""The index of runs: what a change to a thread says about its run.

Kept by the write that stores the change, so that index and thread never disagree.
"""

from msgspec.structs import replace

from techrevati.agent.threads.changeset import ThreadChangeSet
from techrevati.agent.threads.errors import RunElsewhere
from techrevati.agent.threads.runs import RunRecord


def indexed(known: RunRecord | None, thread_id: str, change: ThreadChangeSet, now_ms: int) -> RunRecord | None:
    """Give the run's record after a change; None while nothing was ever said about the run.

    The parents are set once.  A change without `run_meta` only shows that the run lives.

    Raises:
        RunElsewhere: the run is another thread's.
    """
    if known is not None and known.thread_id != thread_id:
        raise RunElsewhere(change.run_id, known.thread_id, thread_id)
    meta = change.run_meta
    if meta is None:
        return None if known is None else replace(known, updated_at=now_ms)
    if known is None:
        known = RunRecord(change.run_id, thread_id, meta.agent_id, meta.origin, meta.status, now_ms, now_ms)
    return replace(
        known,
        agent_id=meta.agent_id,
        origin=meta.origin,
        status=meta.status,
        parent_run_id=known.parent_run_id or change.parent_run_id,
        parent_thread_id=known.parent_thread_id or meta.parent_thread_id,
        termination_code=meta.termination_code,
        termination_detail=meta.termination_detail,
        updated_at=now_ms,
    )
