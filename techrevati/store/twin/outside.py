"""What reaches a run from outside: decisions, messages, a stop, an operator's retry.

Twins: ``lua/`` by the functions' names.
"""

from dataclasses import dataclass

from techrevati.store.twin.above import asker, was_decided
from techrevati.store.twin.finish import RETRIABLE, inbox_add, inbox_drop, stop
from techrevati.store.twin.homes import activate, line_add
from techrevati.store.twin.records import Run
from techrevati.store.twin.unit import Refused, Reply, Unit

INBOX_MAX = 512


def inbox_put(u: Unit, run_id: str, entry_id: str, kind: str, call_id: str, body: str) -> Reply:
    """Hand something from outside to a run; a decision for a call of a sub-agent is handed down to that."""
    run, put = u.known(run_id), f"put:{entry_id}"
    if put in run.decided:
        return u.reply(0)
    if run.is_terminal:
        raise Refused(-5, run.status)
    to = run
    if kind == "decision":
        done = run.calls.get(call_id, call_id) in run.decided
        if done or call_id not in run.calls:
            try:
                to, call_id = asker(u, run, call_id)
            except Refused as refused:
                code = refused.reply[0]
                if code == -5:
                    raise Refused(-6) from None
                if done or code != -6:
                    raise Refused(-7 if done else code) from None
        if to is not run and put in to.decided:
            return u.reply(0)
        canonical = to.calls.get(call_id, call_id)
        if canonical in to.decided:
            raise Refused(-7)
        waits = to.home == "due" and not to.token and to.why in ("decision", "child")
        if waits and call_id not in to.calls:
            raise Refused(-6)
    if len(to.inbox) >= INBOX_MAX:
        raise Refused(-9, len(to.inbox))
    to.decided[put] = run.decided[put] = kind
    if kind == "decision":
        to.decided[canonical] = to.decided[call_id] = entry_id
        was_decided(u, to, canonical)
    inbox_add(u, to, entry_id, kind, body)
    return u.reply(1)


def run_cancel(u: Unit, run_id: str, reason: str, grace: str) -> Reply:
    """End a run and its sub-agents; a leased one is asked to stop and has a grace."""
    run = u.known(run_id)
    if run.is_terminal:
        return u.reply(0, run.status)
    stop(u, run, reason, int(grace))
    return u.reply(1, run.status)


def run_retry(u: Unit, run_id: str, line_max: str) -> Reply:
    """Send a dead, failed or cancelled run back to the turn it ended in, with the sub-agents its end took with it."""
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
    _send_back(u, run, Retries(128))
    return u.reply(1, run.home)


@dataclass(slots=True)
class Retries:
    """How many sub-agents one retry still takes along."""

    left: int


def _send_back(u: Unit, run: Run, more: Retries) -> None:
    """Send a run back, with the sub-agents that its end took with it; what it was told of their ends is taken back."""
    u.p.ended.pop(run.id, None)
    if run.deadline is not None and run.deadline > u.now:
        u.p.deadlines[run.id] = run.deadline
    else:
        run.deadline = None
    thread = u.thread(run)
    run.attempt, run.fails, run.cancel, run.cancel_by, run.error, run.reason = 0, 0, "", None, "", ""
    run.begin, run.ended, run.retried, run.pardon, run.felled = None, None, True, thread.fence, False
    for kid in [u.p.runs[kid_id] for kid_id in sorted(run.kids) if kid_id in u.p.runs]:
        known = kid.owner in u.p.threads and kid.id in u.thread(kid).runs
        if more.left > 0 and kid.status == "cancelled" and kid.felled and known:
            more.left -= 1
            inbox_drop(run, f"child:{kid.id}:{kid.seq}")
            _send_back(u, kid, more)
    u.event(run, "-", "run.queued", role=run.role, agent=run.agent)
    if thread.active:
        line_add(u, run)
    else:
        activate(u, run)
