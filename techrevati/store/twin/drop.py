"""Drop: a thread is taken away at once; the records of its runs follow, a bounded number per call.

    thread_delete ─▶ its runs end ─▶ the thread is gone ─▶ `drops` ── next calls, or the sweep ─▶ nothing is left

Twins: ``lua/_drop.lua``, ``lua/thread_delete.lua``.
"""

from techrevati.store.keys import CHILD_PREFIX
from techrevati.store.twin.finish import finish
from techrevati.store.twin.records import Thread
from techrevati.store.twin.unit import Refused, Reply, Unit


def drop_thread(u: Unit, thread: Thread, reason: str) -> None:
    """End what runs on a thread and take the thread away; its index of runs goes on under a number."""
    for behind in list(thread.line):
        finish(u, u.p.runs[behind], "cancelled", "-", reason=reason)
    if active := u.p.runs.get(thread.active):
        finish(u, active, "cancelled", "-", reason=reason)
    if thread.runs:
        u.p.dropped += 1
        u.p.drops[u.p.dropped] = thread.runs
    del u.p.threads[thread.tenant, thread.id]


def forget(u: Unit, run_id: str) -> None:
    """Take away all that a run of a dropped thread left behind, and the threads of its sub-agents."""
    run = u.p.runs.pop(run_id, None)
    u.p.created.pop(run_id, None)
    u.p.ended.pop(run_id, None)
    u.p.gone.add(run_id)
    if run is None:
        return
    if parent := u.p.runs.get(run.parent):
        parent.kids.discard(run_id)
    if run.idem and u.p.idem.get(run.idem, ("", ""))[0] == run_id:
        del u.p.idem[run.idem]
    for kid_id in sorted(run.kids):
        kid = u.p.runs.get(kid_id)
        if kid is not None and kid.thread.startswith(CHILD_PREFIX) and kid.owner in u.p.threads:
            drop_thread(u, u.thread(kid), "its parent was deleted")


def remove(u: Unit, limit: int) -> int:
    """Forget runs of dropped threads, about `limit`; says how many."""
    removed, left = 0, limit
    while left > 0 and u.p.drops:
        number = min(u.p.drops)
        runs = u.p.drops[number]
        ids = sorted(runs, key=lambda run_id: (runs[run_id], run_id.encode()))[:left]
        for run_id in ids:
            del runs[run_id]
            forget(u, run_id)
        removed, left = removed + len(ids), left - len(ids)
        if not runs:
            del u.p.drops[number]
            left -= 1
    return removed


def thread_delete(u: Unit, tenant: str, thread_id: str, force: str, limit: str) -> Reply:
    """End what runs on a thread, take the thread away, and begin to forget its runs."""
    thread = u.p.threads.get((tenant, thread_id))
    if thread is not None and thread.active in u.p.runs and force != "1":
        raise Refused(-3, thread.active)
    if thread is not None:
        drop_thread(u, thread, "its thread was deleted")
    forgotten = remove(u, int(limit))
    return u.reply(0 if thread is None else 1, forgotten, len(u.p.drops))
