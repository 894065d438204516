"""Finish: the one way a run becomes terminal, whoever ends it.

    leave the home ─▶ event ─▶ promote the line ─▶ tell the parent ─▶ stop the sub-agents

Completed and superseded runs are done with.  A dead, failed or cancelled one may be sent back by an operator,
so its inbox and journal stay as long as it does.

Twin: ``lua/_finish.lua``.
"""

from techrevati.store.twin.above import asks_no_more
from techrevati.store.twin.homes import activate, due_add, leave, ready_add
from techrevati.store.twin.records import Entry, Run
from techrevati.store.twin.unit import S, Unit

RETENTION = 7 * 24 * 3600 * S
GRACE = 10 * S
STOPS = 128
RETRIABLE = frozenset({"dead", "failed", "cancelled"})
WAKEABLE = frozenset({"decision", "timer", "child"})


def wakes(entry_id: str) -> bool:
    """Say if an inbox entry makes a waiting run ready."""
    return not entry_id.startswith("~")


def inbox_add(u: Unit, run: Run, entry_id: str, kind: str, body: str) -> None:
    run.inbox_n += 1
    run.inbox[entry_id] = Entry(run.inbox_n, kind, body)
    if wakes(entry_id):
        run.wakes += 1
        if run.home == "due" and not run.token and run.why in WAKEABLE:
            if run.why == "child" and kind == "child" and run.open > 1:
                run.open -= 1  # it waits for more of them
            else:
                leave(u, run)
                ready_add(u, run)


def inbox_drop(run: Run, entry_id: str) -> None:
    if run.inbox.pop(entry_id, None) and wakes(entry_id):
        run.wakes -= 1


def finish(u: Unit, run: Run, status: str, by: str, *, output: str = "", error: str = "", reason: str = "") -> None:
    """End a run."""
    routing = run.home == "routes" or (run.home == "due" and not run.token and run.why == "route")
    leave(u, run)
    run.home, run.status, run.token, run.why, run.until = "", status, "", "", None
    run.ended = u.now
    run.output, run.error, run.reason = output or run.output, error or run.error, reason or run.reason
    if routing:
        run.resume = "routes"
    shown = {"error": error} if error else {"reason": reason} if reason else {}
    u.event(run, by, f"run.{status}", **shown)
    u.p.deadlines.pop(run.id, None)
    u.p.ended[run.id] = u.now + RETENTION
    kids = sorted(run.kids) if status != "completed" else []
    whole = status in ("cancelled", "superseded")
    if status not in RETRIABLE:
        run.inbox, run.journal, run.calls, run.expiries, run.wakes = {}, {}, {}, {}, 0
    _promote(u, run)
    asks_no_more(u, run)
    _tell_parent(u, run)
    for kid_id in kids:
        kid = u.p.runs.get(kid_id)
        if kid is not None and (whole or "detached" not in kid.extra):
            fell(u, kid, f"its parent was {status}", GRACE)


def _promote(u: Unit, run: Run) -> None:
    """Let the next in line have the thread."""
    thread = u.thread(run)
    if thread.active != run.id:
        return
    thread.active, thread.idle = "", True
    while thread.line and not thread.active:
        if follower := u.p.runs.get(thread.line.pop(0)):
            activate(u, follower)


def _tell_parent(u: Unit, run: Run) -> None:
    """Put the end into the parent's inbox, also if that ended but may be sent back.

    The event's number keeps the second end of a retried run apart from its first.
    """
    parent = u.p.runs.get(run.parent)
    if parent is not None and (not parent.is_terminal or parent.status in RETRIABLE):
        body = f'{{"run_id":"{run.id}","status":"{run.status}"}}'
        inbox_add(u, parent, f"child:{run.id}:{run.seq}", "child", body)
        if not parent.is_terminal:
            u.event(parent, "-", "call.ended" if run.is_call else "child.ended", child=run.id, status=run.status)


def flag(u: Unit, run: Run, reason: str, grace: int) -> None:
    """Ask a leased run to stop; the sweep ends it when the grace is over, or its lease."""
    if not run.cancel:
        run.cancel, run.cancel_by, run.grace = reason, u.now + grace, grace
        u.event(run, "-", "run.cancelling", reason=reason)
        u.p.due[run.id] = min(u.p.due[run.id], run.cancel_by)


def wind_up(u: Unit, run: Run, reason: str, grace: int) -> None:
    """Give a run that waits one more turn, for the hooks its agent has for its end; its sub-agents stop now."""
    run.cancel, run.cancel_by, run.grace = reason, u.now + grace, grace
    u.event(run, "-", "run.cancelling", reason=reason)
    if run.home not in ("ready", "last"):
        leave(u, run)
        ready_add(u, run)
    for kid_id in sorted(run.kids):
        if kid := u.p.runs.get(kid_id):
            fell(u, kid, reason, grace)


def fell(u: Unit, kid: Run, reason: str, grace: int) -> None:
    """Stop a sub-agent because its parent ends or is stopped: noted, for both may be sent back together."""
    if not kid.is_terminal:
        kid.felled = True
        stop(u, kid, reason, grace)


def stop(u: Unit, run: Run, reason: str, grace: int) -> None:
    """Cancel a run and its sub-agents.  One script ends 128 at most; the rest stands due, flagged, for the sweep."""
    if run.is_terminal:
        return
    if run.is_leased:
        flag(u, run, reason, grace)
        for kid_id in sorted(run.kids):
            if kid := u.p.runs.get(kid_id):
                fell(u, kid, reason, grace)
    elif u.stops < STOPS and not run.cancel and run.turn > 1 and run.winds_up and u.role(run.role).window > 0:
        u.stops += 1
        wind_up(u, run, reason, grace)
    elif u.stops < STOPS or run.home == "line":
        u.stops += 1
        finish(u, run, "cancelled", "-", reason=reason)
    elif not run.cancel:
        leave(u, run)
        run.cancel, run.cancel_by = reason, u.now
        due_add(u, run, u.now, "cancel")
