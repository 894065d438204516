"""Begin: how a run comes into being; where it then stands is the script's matter.

Twin: ``lua/_start.lua``.
"""

from techrevati.store.twin.records import Run, Thread
from techrevati.store.twin.unit import Refused, Reply, Unit


def made_before(u: Unit, idem: str, digest: str, run_id: str, thread_id: str) -> Reply | None:
    """Give the answer to a start that was made before."""
    if idem and idem in u.p.idem:
        first, made_of = u.p.idem[idem]
        if made_of != digest:
            raise Refused(-2, first)
        known = u.p.runs.get(first)
        return u.reply(0, first, known.thread if known else "")
    return u.reply(0, run_id, thread_id) if run_id in u.p.runs or run_id in u.p.gone else None


def begin_run(
    u: Unit, thread: Thread, run: Run, idem: str, digest: str, begin: int | None, deadline: int | None
) -> None:
    """Write a run of a known thread into every index."""
    run.created, run.idem, run.begin, run.deadline = u.now, idem, begin, deadline
    u.p.runs[run.id] = run
    if deadline is not None:
        u.p.deadlines[run.id] = deadline
    u.p.created[run.id] = u.now
    for old in list(thread.runs)[:2]:
        if old not in u.p.runs:
            del thread.runs[old]
    thread.runs[run.id] = u.now
    if idem:
        u.p.idem[idem] = run.id, digest
    u.event(run, "-", "run.queued", role=run.role, agent=run.agent)
