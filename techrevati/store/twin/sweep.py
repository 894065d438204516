"""The sweep: look again at what is due, keep the ticket accounts true, forget what is past its retention.

Twin: ``lua/run_sweep.lua``.
"""

from techrevati.store.twin.above import was_decided
from techrevati.store.twin.coordinate import window_of
from techrevati.store.twin.drop import remove
from techrevati.store.twin.finish import finish, inbox_add
from techrevati.store.twin.homes import due_add, leave, offer, offer_all, ready_add, routes_add, uncap
from techrevati.store.twin.records import NEVER, Role, Run
from techrevati.store.twin.unit import Reply, S, Unit

PATIENCE_MAX = 30 * S
HOLD = 1 * S


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
    remove(u, most)
    for name in sorted(u.p.roles):
        _account(u, u.p.roles[name], most, int(patience))
    look = u.now if u.p.drops else min([*u.p.due.values(), *u.p.deadlines.values()], default=NEVER)
    return u.reply(1, moved, "" if look == NEVER else str(int(look)), expired, dead)


def _due(index: dict[str, float], now: int, most: int) -> list[str]:
    over = [(at, run_id.encode(), run_id) for run_id, at in index.items() if at <= now]
    return [run_id for _, _, run_id in sorted(over)[:most]]


def _expire(u: Unit, run: Run) -> int:
    """A lease ran out: the turn is to run again, unless its run was to stop or this was its last attempt."""
    if run.cancel and not (run.winds_up and run.attempt + 1 < run.max_attempts):
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
        was_decided(u, run, call_id, expired="1")
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
