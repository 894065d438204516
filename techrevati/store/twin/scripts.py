"""The scripts, one function each: the same arguments, the same reply, on a `Partition` in memory.

    speak(partition, call, now) ──▶ run_start(...) · run_claim(...) · ... ──▶ reply

This is the protocol to read.  Each function mirrors ``lua/<its name>.lua``, whose header says what the arguments
and the reply are; the property tests send both the same calls and compare replies and records.
"""

from collections.abc import Callable, Sequence
from typing import Any

from techrevati.store.calls import Call
from techrevati.store.scripts import PROTOCOL
from techrevati.store.twin.finish import (
    RETRIABLE,
    finish,
    inbox_add,
    inbox_drop,
    stop,
)
from techrevati.store.twin.grant import charge, grant
from techrevati.store.twin.homes import (
    activate,
    due_add,
    leave,
    line_add,
    offer,
    offer_all,
    ready_add,
    routes_add,
    uncap,
)
from techrevati.store.twin.records import NEVER, Delta, Partition, Pending, Role, Run, Thread, Version
from techrevati.store.twin.unit import Refused, Reply, S, Unit, by_of, enter, when

INBOX_MAX, KIDS_MAX = 512, 128
PATIENCE_MAX = 30 * S
HOLD = 1 * S
MOVES = ("continue", "sleep", "park", "retry", "suspend", "handoff", "complete", "fail", "dead")
RESERVED = ("lease", "decision", "start", "route", "cancel")


class Malformed(Exception):
    """The script raises an error, before it has written anything."""


def speak(p: Partition, call: Call[Any], now: int) -> Reply:
    """Say to the twin what a client says to Redis."""
    try:
        return SCRIPTS[call.script](enter(p, PROTOCOL, now), *map(str, call.args))
    except Refused as refused:
        return refused.reply


def pairs(flat: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


# Starting.


def run_start(
    u: Unit,
    run_id: str,
    tenant: str,
    thread_id: str,
    role: str,
    agent: str,
    policy: str,
    messages: str,
    idem: str,
    digest: str,
    begin: str,
    deadline: str,
    priority: str,
    attempts: str,
    parent_id: str,
    line_max: str,
    *fields: str,
) -> Reply:
    """Create a run (and its thread), or return what the idempotency key already made."""
    if idem and idem in u.p.idem:
        first, made_of = u.p.idem[idem]
        if made_of != digest:
            raise Refused(-2, first)
        known = u.p.runs.get(first)
        return u.reply(0, first, known.thread if known else "")
    if run_id in u.p.runs:
        return u.reply(0, run_id, thread_id)
    parent = u.p.runs.get(parent_id)
    if parent_id:
        if parent is None or parent.is_terminal:
            raise Refused(-4)
        if len(parent.kids) >= KIDS_MAX:
            raise Refused(-6)
    thread = u.p.threads.get((tenant, thread_id)) or Thread(tenant, thread_id, created=u.now)
    active = u.p.runs.get(thread.active)
    waits = active is not None and active.home == "due" and active.why == "decision" and messages == "1"
    if active is not None and policy == "reject":
        raise Refused(-3, active.id)
    full = len(thread.line) >= int(line_max) and not (waits and not thread.line)
    if active is not None and policy == "enqueue" and full:
        raise Refused(-5, len(thread.line))

    u.p.threads[tenant, thread_id] = thread
    run = u.p.runs[run_id] = Run(run_id, tenant, thread_id, role, agent, created=u.now, parent=parent_id, idem=idem)
    run.priority, run.max_attempts, run.extra = int(priority), int(attempts), dict(pairs(fields))
    run.begin, run.deadline = when(begin, u.now), when(deadline, u.now)
    if run.deadline is not None:
        u.p.deadlines[run_id] = run.deadline
    u.p.created[run_id] = u.now
    if idem:
        u.p.idem[idem] = run_id, digest
    if parent is not None:
        parent.kids.add(run_id)
    u.event(run, "-", "run.queued", role=role, agent=agent)

    if active is not None and policy in ("interrupt", "rollback"):
        _take_over(u, thread, active, run, policy)
    elif active is not None and waits:  # a suspended run does not outlive a new message
        finish(u, active, "superseded", "-", reason=f"a new message by {run_id}")
        if thread.active:
            line_add(u, run)
        else:
            activate(u, run)
    elif active is not None:
        line_add(u, run)
    else:
        activate(u, run)
    return u.reply(1, run_id, thread_id)


def _take_over(u: Unit, thread: Thread, active: Run, run: Run, policy: str) -> None:
    """End the active run and its line; with rollback also undo what the active one committed."""
    back_to, back_full, base = active.rollback_to, active.rollback_full, active.rollback_base
    for other in list(thread.line):
        finish(u, u.p.runs[other], "superseded", "-", reason=f"{policy} by {run.id}")
    finish(u, active, "superseded", "-", reason=f"{policy} by {run.id}")
    if policy == "rollback" and thread.version > back_to:
        _say_state_of(thread, back_to, back_full, base, run)
    activate(u, run)


def _say_state_of(thread: Thread, back_to: int, back_full: int, base: int, run: Run) -> None:
    """Append a version that says "state of `back_to`": versions only grow, and messages stay in the list."""
    old = next((version for version in thread.versions if version.version == back_to), None)
    stored, spans = (old.messages, old.spans) if old else (0, "0:")
    start = spans[:-1].rpartition(",")[2]  # where the open last span begins: it is closed, or dropped if empty
    shown = spans[: -len(start) - 1] if int(start) == stored else f"{spans}{stored},"
    view = f"{shown}{thread.stored}:"
    version, commit = thread.version + 1, f"r{run.id}"
    made = Version(version, commit, thread.commit, thread.stored, view, run.id, back_to=back_to, back_full=back_full)
    thread.versions.append(made)
    thread.version, thread.commit, thread.spans, thread.full = version, commit, view, version
    thread.since, thread.worker, thread.base = 0, "", base if back_to > 0 else None


# A turn: claim, steps, commit.


def run_claim(
    u: Unit, role: str, claim_id: str, worker: str, ttl: str, lane_free: str, ticket: str, inline: str
) -> Reply:
    """Lease the fairest ready run of a role."""
    got = grant(u, role, claim_id, worker, int(ttl), lane_free == "1", int(inline), ticket == "1")
    return u.reply(0, u.role(role).ready) if got is None else u.reply(1, got)


def turn_commit(
    u: Unit,
    run_id: str,
    token: str,
    move: str,
    at: str,
    target: str,
    body: str,
    state_kind: str,
    state: str,
    worker: str,
    cost: str,
    usage: str,
    keep_from: str,
    size: str,
    next_claim: str,
    ttl: str,
    lane_free: str,
    inline: str,
    *rest: str,
) -> Reply:
    """End a turn under its fencing token: append what it made, move the run; maybe claim the next."""
    until = when(at, u.now)
    if (
        move not in MOVES
        or (move in ("sleep", "park", "retry") and until is None)
        or (move == "park" and target in RESERVED)
    ):
        raise Malformed(move)

    def next_grant(role: str) -> Any:
        if not next_claim:
            return 0
        got = grant(u, role, next_claim, worker, int(ttl), lane_free == "1", int(inline))
        if got is None:  # the claim did not take what is ready, so a ticket has to
            offer(u, u.role(role))
        return got or 0

    run = u.known(run_id)
    if token == "" or run.token != token:
        if token == "" or run.commit != token or run.reply is None:
            u.p.fenced += 1
            raise Refused(-1, run.token)
        version, home, role = run.reply
        return u.reply(0, version, home, next_grant(role))

    messages, events, read, asks, journal = _unpack(rest)
    thread, by, role, turn = u.thread(run), by_of(token), run.role, run.turn
    stays = move in ("park", "retry", "dead")  # the same turn may run again, from its journal
    stopped = bool(run.cancel) and move not in ("complete", "fail")

    if not stays:
        thread.messages += messages
        thread.stored += len(messages)
        made = Version(thread.version + 1, token, thread.commit, thread.stored, thread.spans, run.id, turn)
        made.kind, made.state = (state_kind, state) if state_kind else ("", "")
        thread.versions.append(made)
        if state_kind == "f":
            thread.full, thread.since, thread.base = made.version, 0, None
            _trim(thread, run, min(int(keep_from or 0), made.version))
        else:
            thread.since += 1
        thread.version, thread.commit, thread.worker = made.version, token, worker
        thread.bytes += int(size)
    for kind, data in events:
        u.event(run, by, kind, data=data)
    early = _decided_before_asked(run, asks) if move == "suspend" else set()
    for entry_id in read:
        if entry_id not in early:
            inbox_drop(run, entry_id)
    for key, result in journal:
        run.journal.setdefault(f"e:{key}", result)
    if usage:
        tin, tout, micros = (had + int(more) for had, more in zip(run.usage, usage.split(), strict=True))
        run.usage = tin, tout, micros
    if cost:
        charge(u, run, float(cost))

    if not stays:
        run.journal = {}
        run.turn, run.attempt, run.fails = turn + 1, 0, 0
    if stopped:
        u.event(run, by, "turn.committed", turn=turn, role=role, move="cancelled")
        finish(u, run, "cancelled", by, reason=run.cancel)
    elif move == "complete":
        u.event(run, by, "turn.committed", turn=turn, role=role, move=move)
        finish(u, run, "completed", by, output=body)
    elif move in ("fail", "dead"):
        finish(u, run, "dead" if move == "dead" else "failed", by, error=body)
    elif move == "park":
        assert until is not None
        leave(u, run)
        u.event(run, by, "turn.parked", turn=turn, role=role, why=target, until=until)
        due_add(u, run, until, target)
    elif move == "retry":
        assert until is not None
        leave(u, run)
        run.fails, run.error = run.fails + 1, body
        said: dict[str, str | int] = {"attempt": run.fails, "failure": target, "error": body, "until": until}
        u.event(run, by, "turn.retry", turn=turn, role=role, **said)
        due_add(u, run, until, "backoff")
    elif move == "handoff":
        leave(u, run)
        run.hops, run.target, run.handed = run.hops + 1, target, body
        u.event(run, by, "turn.committed", turn=turn, role=role, move=move, target=target)
        routes_add(u, run)
    else:
        leave(u, run)
        u.event(run, by, "turn.committed", turn=turn, role=role, move=move)
        look: float = _ask(u, run, asks, body) if move == "suspend" else until or 0
        # Whatever came while the turn ran and was not read by it keeps the run from waiting.
        if move == "continue" or run.wakes > 0 or (move == "sleep" and look <= u.now):
            ready_add(u, run, quiet=next_claim != "")
        else:
            due_add(u, run, look, "timer" if move == "sleep" else "decision")
    run.commit, run.reply = token, (str(thread.version), run.home or "-", role)
    return u.reply(1, *run.reply[:2], next_grant(role))


_Ask = tuple[str, str, str, str, str]


def _unpack(
    rest: Sequence[str],
) -> tuple[list[str], list[tuple[str, str]], list[str], list[_Ask], list[tuple[str, str]]]:
    """Give messages, events, inbox ids, asked calls and journal, from five counts and what they count."""
    counts, items, position = [int(count) for count in rest[:5]], rest[5:], 0
    parts = []
    for count, width in zip(counts, (1, 2, 1, 5, 2), strict=True):
        parts.append(list(items[position : position + count * width]))
        position += count * width
    messages, events, read, asks, journal = parts
    asked = [(asks[i], asks[i + 1], asks[i + 2], asks[i + 3], asks[i + 4]) for i in range(0, len(asks), 5)]
    return messages, pairs(events), read, asked, pairs(journal)


def _trim(thread: Thread, run: Run, keep: int) -> None:
    """Forget old versions: never the newest full one, nor what a rollback of this run would rebuild."""
    if run.rollback_to > 0:
        keep = min(keep, run.rollback_base)
    if keep > 0:
        thread.versions = [version for version in thread.versions if version.version >= keep]


def _decided_before_asked(run: Run, asks: Sequence[_Ask]) -> set[str]:
    """Give the decisions for calls that nobody had asked for yet: the next turn has to read them again."""
    ids = [alias for ask in asks if ask[0] not in run.calls for alias in ask[:3]]
    return {run.decided[alias] for alias in ids if alias in run.decided}


def _ask(u: Unit, run: Run, asks: Sequence[_Ask], waits: str) -> float:
    """Note the calls a run waits for; gives when the first of them expires."""
    run.calls, run.expiries, run.waits = {}, {}, waits
    for call_id, *more, expires, default in asks:
        ids = [call_id, *more]
        run.calls.update((alias, call_id) for alias in ids if alias)
        _adopt(run, ids)
        at = when(expires, u.now)
        if at is not None:
            run.expiries[call_id] = Pending(at, default)
    return min((pending.expires for pending in run.expiries.values()), default=NEVER)


def _adopt(run: Run, ids: Sequence[str]) -> None:
    """Let the first decision stand that came under any of a call's ids before it was known."""
    early = list(dict.fromkeys(run.decided[alias] for alias in ids if alias in run.decided))
    if early:
        first = min(early, key=lambda entry: run.inbox[entry].order if entry in run.inbox else 0)
        run.decided[ids[0]] = first
        for entry in early:
            if entry != first:
                inbox_drop(run, entry)


def run_release(u: Unit, run_id: str, token: str, *journal: str) -> Reply:
    """Give a leased run back unharmed: no attempt is counted, it keeps its place."""
    run = u.known(run_id)
    if token and run.token != token and token in (run.commit, run.released):
        return u.reply(0)
    u.held(run_id, token)
    for key, result in pairs(journal):
        run.journal.setdefault(f"e:{key}", result)
    run.released = token
    if run.cancel:
        finish(u, run, "cancelled", by_of(token), reason=run.cancel)
    else:
        leave(u, run)
        u.event(run, by_of(token), "turn.released", turn=run.turn, role=run.role)
        ready_add(u, run)
    return u.reply(1)


def run_renew(u: Unit, ttl: str, *leases: str) -> Reply:
    """Prolong leases; 1 renewed, 2 renewed and to be cancelled, 0 lost."""
    codes = []
    for run_id, token in pairs(leases):
        run = u.p.runs.get(run_id)
        if run is None or token == "" or run.token != token:
            codes.append(0)
            continue
        until = u.now + int(ttl)
        u.p.due[run_id] = min(until, run.cancel_by or until) if run.cancel else until
        codes.append(2 if run.cancel else 1)
    return [1, [], codes]


def step_begin(u: Unit, run_id: str, token: str, key: str, policy: str, *journal: str) -> Reply:
    """Note that a side effect of this turn is about to happen."""
    run = u.held(run_id, token)
    for name, result in pairs(journal):
        run.journal.setdefault(f"e:{name}", result)
    if f"e:{key}" in run.journal:
        return u.reply(2, run.journal[f"e:{key}"])
    begun = run.journal.get(f"b:{key}", token)
    if begun != token and policy == "once" and int(begun.partition(".")[0]) > run.pardon:
        return u.reply(-8)
    run.journal[f"b:{key}"] = token
    return u.reply(1)


def step_end(u: Unit, run_id: str, token: str, *journal: str) -> Reply:
    """Journal the result of a side effect; the first result wins."""
    run = u.held(run_id, token)
    for key, result in pairs(journal):
        run.journal.setdefault(f"e:{key}", result)
    return u.reply(1, run.journal[f"e:{journal[-2]}"])


def live_append(u: Unit, run_id: str, token: str, cap: str, ttl: str, batch: str, *deltas: str) -> Reply:
    """Add deltas behind the last durable event."""
    run = u.held(run_id, token)
    n = run.live_n if run.live_seq == run.seq else 0
    of, _, last = run.live_batch.partition(" ")
    if of == token and int(batch) <= int(last):
        return u.reply(0, str(run.seq), str(n))
    for kind, data in pairs(deltas):
        n += 1
        run.live.append(Delta(run.seq, n, kind, run.attempt + 1, data))
    run.live_seq, run.live_n, run.live_batch = run.seq, n, f"{token} {batch}"
    return u.reply(1, str(run.seq), str(n))


# From outside.


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


# The coordinator's.


def run_route(u: Unit, run_id: str, hop: str, action: str, role: str, agent: str, at: str, why: str) -> Reply:
    """Act on a decision about a handoff, if the run still stands at that hop."""
    run = u.known(run_id)
    if run.home != "routes" or run.hops != int(hop):
        return u.reply(0)
    if action == "place":
        source = run.agent
        leave(u, run)
        run.role, run.agent, run.detail = role, agent, ""
        u.event(run, "-", "handoff.placed", source=source, target=agent, role=role)
        ready_add(u, run)
    elif action == "wait":
        leave(u, run)
        if run.detail != why:
            run.detail = why
            u.event(run, "-", "run.waiting", why=why)
        due_add(u, run, when(at, u.now) or u.now, "route")
    else:
        finish(u, run, "failed", "-", error=why)
    return u.reply(1)


def run_sweep(u: Unit, limit: str, expire: str, patience: str) -> Reply:
    """Look again at what is due, keep the ticket accounts true, forget what is past its retention."""
    most, moved, expired, dead = int(limit), 0, 0, 0
    for run_id in _due(u.p.due, u.now, most):
        run = u.p.runs.get(run_id)
        if run is None:
            del u.p.due[run_id]
        elif run.home != "due":
            continue  # a sibling's end moved it in this very call
        elif run.is_leased:
            over = bool(run.cancel) and (run.cancel_by or 0) <= u.now
            if expire == "1" or over:
                moved, expired = moved + 1, expired + 1
                dead += _expire(u, run)
            else:  # Redis was away: its holder needs time to renew, and the timers behind it go on
                u.p.due[run_id] = min(u.now + HOLD, run.cancel_by or NEVER) if run.cancel else u.now + HOLD
        else:
            moved += 1
            _look(u, run)
    for run_id in _due(u.p.deadlines, u.now, most):
        run = u.p.runs.get(run_id)
        if run is not None and not run.is_terminal:
            moved += 1
            error = '{"type":"DeadlineExceeded","message":"the deadline passed"}'
            finish(u, run, "failed", "-", error=error)
        u.p.deadlines.pop(run_id, None)
    for run_id in _due(u.p.ended, u.now, most):
        del u.p.ended[run_id]
        u.p.created.pop(run_id, None)
    for name in sorted(u.p.roles):
        _account(u, u.p.roles[name], most, int(patience))
    look = min([*u.p.due.values(), *u.p.deadlines.values()], default=NEVER)
    return u.reply(1, moved, "" if look == NEVER else str(int(look)), expired, dead)


def _due(index: dict[str, float], now: int, most: int) -> list[str]:
    over = [(at, run_id.encode(), run_id) for run_id, at in index.items() if at <= now]
    return [run_id for _, _, run_id in sorted(over)[:most]]


def _expire(u: Unit, run: Run) -> int:
    """A lease ran out: the turn is to run again, unless its run was to stop or this was its last attempt."""
    if run.cancel:
        finish(u, run, "cancelled", "-", reason=run.cancel)
        return 0
    leave(u, run)
    run.attempt += 1
    said: dict[str, str | int] = {"role": run.role, "attempt": run.attempt, "worker": run.worker}
    u.event(run, "-", "turn.expired", turn=run.turn, **said)
    if run.attempt >= run.max_attempts:
        text = f"turn {run.turn} lost its worker {run.attempt} times"
        finish(u, run, "dead", "-", error=f'{{"type":"WorkerDied","message":"{text}","attempts":{run.attempt}}}')
        return 1
    ready_add(u, run, quiet=True)
    offer(u, u.role(run.role), sure=True)
    return 0


def _look(u: Unit, run: Run) -> None:
    """What a waiting run waited for is here: its time."""
    if run.cancel:
        finish(u, run, "cancelled", "-", reason=run.cancel)
    elif run.why == "decision":
        _decide_expired(u, run)
    elif run.why == "route":
        leave(u, run)
        routes_add(u, run)
    else:
        leave(u, run)
        ready_add(u, run)


def _decide_expired(u: Unit, run: Run) -> None:
    """Nobody decided in time: put the decision that the turn gave for that case."""
    open_calls = [(p.expires, call_id, p.default) for call_id, p in run.expiries.items() if call_id not in run.decided]
    for _, call_id, default in sorted(call for call in open_calls if call[0] <= u.now):
        run.decided[call_id] = f"expired:{call_id}"
        u.event(run, "-", "call.decided", call_id=call_id, expired="1")
        inbox_add(u, run, f"expired:{call_id}", "decision", default or "null")
    if run.home == "due":
        leave(u, run)
        due_add(u, run, min((at for at, _, _ in open_calls if at > u.now), default=NEVER), "decision")


def _account(u: Unit, role: Role, most: int, patience: int) -> None:
    """Keep a role's ticket account true: forget dead pools, lost tickets and caps that are no more."""
    role.fair = {tenant: tag for tenant, tag in role.fair.items() if tag > role.virtual}
    for tenant in [tenant for _, _, tenant in sorted((tag, t.encode(), t) for t, tag in role.capped.items())][:most]:
        if not role.cap or role.running.get(tenant, 0) < role.cap:
            uncap(u, role, tenant)
    role.pool = {worker: beat for worker, beat in role.pool.items() if beat[1] > u.now}
    role.window = window_of(role, u.now)
    waited = role.patience or patience
    if role.ready > 0 and u.now - role.since >= waited:
        role.out, role.since, role.patience = 0, u.now, min(2 * waited, PATIENCE_MAX)
    if role.window > 0:
        offer_all(u, role, most)


def window_of(role: Role, now: int) -> int:
    """Give how many tickets may be out: twice the live places, at least 4, none without a pool."""
    places = sum(places for places, expires in role.pool.values() if expires > now)
    return max(4, 2 * places) if places else 0


def pool_beat(u: Unit, role_name: str, worker: str, places: str, ttl: str, template: str) -> Reply:
    """A worker says it lives, with how many places; the role's window follows."""
    role = u.role(role_name)
    if places == "0":
        role.pool.pop(worker, None)
    else:
        role.pool[worker] = int(places), u.now + int(ttl)
        role.template = template
    role.window = window_of(role, u.now)
    offer_all(u, role, 128)
    return u.reply(1, str(role.window), str(role.ready))


def partition_lease(u: Unit, holder: str, ttl: str) -> Reply:
    """One coordinator sweeps a partition; its lease runs out with it."""
    held = u.p.sweeper
    if held and held[0] != holder and held[1] > u.now:
        return [0, [], held[0], str(held[1])]
    if ttl == "0":
        if held and held[0] == holder:
            u.p.sweeper = None
        return [1, [], str(u.now)]
    u.p.sweeper = holder, u.now + int(ttl)
    return [1, [], str(u.p.sweeper[1])]


SCRIPTS: dict[str, Callable[..., Reply]] = {
    function.__name__: function
    for function in (
        *(run_start, run_claim, turn_commit, run_release, run_renew, step_begin, step_end, live_append),
        *(inbox_put, run_cancel, run_retry, run_route, run_sweep, pool_beat, partition_lease),
    )
}
