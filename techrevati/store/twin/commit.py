"""The end of a turn: what it made is appended, and its run moves.

Twin: ``lua/turn_commit.lua``.
"""

from collections.abc import Sequence
from typing import Any

from techrevati.store.twin.above import asks, tell_turn
from techrevati.store.twin.finish import finish, inbox_drop
from techrevati.store.twin.grant import charge, grant
from techrevati.store.twin.homes import due_add, leave, offer, ready_add, routes_add
from techrevati.store.twin.records import NEVER, Pending, Run, Thread, Version
from techrevati.store.twin.unit import Malformed, Refused, Reply, Unit, by_of, pairs, when

MOVES = ("continue", "sleep", "park", "retry", "suspend", "handoff", "complete", "fail", "dead")
RESERVED = ("lease", "decision", "start", "route", "cancel")


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
    ticket: str,
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
        got = grant(u, role, next_claim, worker, int(ttl), lane_free == "1", int(inline), ticket == "1")
        if got is not None:
            return got
        offer(u, u.role(role))  # the claim did not take what is ready, so a ticket has to
        return u.role(role).ready

    run = u.known(run_id)
    if token == "" or run.token != token:
        if token == "" or run.commit != token or run.reply is None:
            u.p.fenced += 1
            raise Refused(-1, run.token)
        version, home, role = run.reply
        return u.reply(0, version, home, next_grant(role))

    messages, events, read, asked, journal = _unpack(rest)
    thread, by, role, turn = u.thread(run), by_of(token), run.role, run.turn
    stays = move in ("park", "retry", "dead")  # the same turn may run again, from its journal
    stopped = bool(run.cancel) and move not in ("complete", "fail")

    if not stays:
        thread.messages += messages
        thread.stored += len(messages)
        made = Version(thread.version + 1, token, thread.commit, thread.stored, thread.spans, run.id, u.now, turn)
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
    early = _decided_before_asked(run, asked) if move == "suspend" else set()
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
        tell_turn(u, run, turn, move)
        routes_add(u, run)
    else:
        leave(u, run)
        u.event(run, by, "turn.committed", turn=turn, role=role, move=move)
        tell_turn(u, run, turn, move)
        look: float = until or 0
        open_ = int(target or 0) if move == "suspend" and not asked else 0
        if move == "suspend":
            look = min(_ask(u, run, asked, body), NEVER if until is None else until)
        if open_:
            run.open = open_ = _still_open(run, open_)
        # Whatever came while the turn ran and was not read by it keeps the run from waiting.
        if move == "continue" or (run.wakes > 0 and not open_) or (move == "sleep" and look <= u.now):
            ready_add(u, run, quiet=next_claim != "")
        else:
            due_add(u, run, look, "timer" if move == "sleep" else "child" if open_ else "decision")
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
    messages, events, read, flat, journal = parts
    asked = [(flat[i], flat[i + 1], flat[i + 2], flat[i + 3], flat[i + 4]) for i in range(0, len(flat), 5)]
    return messages, pairs(events), read, asked, pairs(journal)


def _trim(thread: Thread, run: Run, keep: int) -> None:
    """Forget old versions: never the newest full one, nor what a rollback of this run would rebuild."""
    if run.rollback_to > 0:
        keep = min(keep, run.rollback_base)
    if keep > 0:
        thread.versions = [version for version in thread.versions if version.version >= keep]


def _decided_before_asked(run: Run, asked: Sequence[_Ask]) -> set[str]:
    """Give the decisions for calls that nobody had asked for yet: the next turn has to read them again."""
    ids = [alias for ask in asked if ask[0] not in run.calls for alias in ask[:3]]
    return {run.decided[alias] for alias in ids if alias in run.decided}


def _still_open(run: Run, open_: int) -> int:
    """Give how many sub-agents it still waits for; an end may be in the inbox, and what else is there wakes it."""
    ends = sum(entry.kind == "child" for entry in run.inbox.values())
    return 0 if run.wakes > ends else max(0, open_ - ends)


def _ask(u: Unit, run: Run, asked: Sequence[_Ask], waits: str) -> float:
    """Note the calls a run waits for; gives when the first of them expires."""
    run.calls, run.expiries, run.waits = {}, {}, waits
    for call_id, *more, expires, default in asked:
        ids = [call_id, *more]
        run.calls.update((alias, call_id) for alias in ids if alias)
        _adopt(run, ids)
        at = when(expires, u.now)
        if at is not None:
            run.expiries[call_id] = Pending(at, default)
    if asked:
        asks(u, run, waits)
    return min((pending.expires for pending in run.expiries.values()), default=NEVER)


def _adopt(run: Run, ids: Sequence[str]) -> None:
    """Let the first decision stand that came under any of a call's ids before it was known.

    One that was read answered an earlier question of the same call.
    """
    for alias in ids:
        if run.decided.get(alias, "") not in run.inbox:
            run.decided.pop(alias, None)
    early = list(dict.fromkeys(run.decided[alias] for alias in ids if alias in run.decided))
    if early:
        first = min(early, key=lambda entry: run.inbox[entry].order)
        run.decided[ids[0]] = first
        for entry in early:
            if entry != first:
                inbox_drop(run, entry)
