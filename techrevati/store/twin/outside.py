"""What reaches a run from outside: decisions, messages, a stop, an operator's retry.

Twins: ``lua/`` by the functions' names.
"""

from techrevati.store.twin.finish import RETRIABLE, inbox_add, stop
from techrevati.store.twin.homes import activate, line_add
from techrevati.store.twin.unit import Refused, Reply, Unit

INBOX_MAX = 512


def inbox_put(u: Unit, run_id: str, entry_id: str, kind: str, call_id: str, body: str) -> Reply:
    """Hand something from outside to a run: a decision, a steering message."""
    run = u.known(run_id)
    if f"put:{entry_id}" in run.decided:
        return u.reply(0)
    if run.is_terminal:
        raise Refused(-5, run.status)
    canonical = run.calls.get(call_id, call_id)
    if kind == "decision":
        if canonical in run.decided:
            raise Refused(-7)
        suspended = run.home == "due" and not run.token and run.why == "decision"
        if suspended and call_id not in run.calls:
            raise Refused(-6)
    if len(run.inbox) >= INBOX_MAX:
        raise Refused(-9, len(run.inbox))
    run.decided[f"put:{entry_id}"] = kind
    if kind == "decision":
        run.decided[canonical] = run.decided[call_id] = entry_id
        u.event(run, "-", "call.decided", call_id=canonical)
    inbox_add(u, run, entry_id, kind, body)
    return u.reply(1)


def run_cancel(u: Unit, run_id: str, reason: str, grace: str) -> Reply:
    """End a run and its sub-agents; a leased one is asked to stop and has a grace."""
    run = u.known(run_id)
    if run.is_terminal:
        return u.reply(0, run.status)
    stop(u, run, reason, int(grace))
    return u.reply(1, run.status)


def run_retry(u: Unit, run_id: str, line_max: str) -> Reply:
    """Send a dead, failed or cancelled run back to the turn it ended in."""
    run = u.known(run_id)
    if not run.is_terminal and run.retried:
        return u.reply(0, run.home)
    if run.status not in RETRIABLE:
        raise Refused(-11, run.status)
    if run.owner not in u.p.threads:
        raise Refused(-4)
    thread = u.thread(run)
    if run_id not in thread.runs:  # the run's thread was deleted: this is another of its name
        raise Refused(-4)
    if thread.active and len(thread.line) >= int(line_max):
        raise Refused(-5, len(thread.line))
    u.p.ended.pop(run_id, None)
    if run.deadline is not None and run.deadline > u.now:
        u.p.deadlines[run_id] = run.deadline
    else:
        run.deadline = None
    run.attempt, run.fails, run.cancel, run.cancel_by, run.error, run.reason = 0, 0, "", None, "", ""
    run.begin, run.ended, run.retried, run.pardon = None, None, True, thread.fence
    u.event(run, "-", "run.queued", role=run.role, agent=run.agent)
    if thread.active:
        line_add(u, run)
    else:
        activate(u, run)
    return u.reply(1, run.home)
