"""A turn under way: its lease, its journal, its deltas.

    run_claim ─▶ step_begin · step_end · live_append · run_renew ─▶ turn_commit | run_release

Twins: ``lua/`` by the functions' names.
"""

from techrevati.store.twin.finish import finish
from techrevati.store.twin.grant import grant
from techrevati.store.twin.homes import leave, ready_add
from techrevati.store.twin.records import Delta
from techrevati.store.twin.unit import Reply, Unit, by_of, pairs


def run_claim(
    u: Unit, role: str, claim_id: str, worker: str, ttl: str, lane_free: str, ticket: str, inline: str
) -> Reply:
    """Lease the fairest ready run of a role."""
    got = grant(u, role, claim_id, worker, int(ttl), lane_free == "1", int(inline), ticket == "1")
    return u.reply(0, u.role(role).ready) if got is None else u.reply(1, got)


def run_release(u: Unit, run_id: str, token: str, *journal: str) -> Reply:
    """Give a leased run back unharmed: no attempt is counted, it keeps its place."""
    run = u.known(run_id)
    if token and run.token != token and token in (run.commit, run.released):
        return u.reply(0)
    u.held(run_id, token)
    for key, result in pairs(journal):
        run.journal.setdefault(f"e:{key}", result)
    run.released = token
    if run.cancel and not run.winds_up:
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
    """Add deltas behind the last durable event; those of a tool call in a pool of its own are its parent's."""
    run = u.held(run_id, token)
    to = u.p.runs.get(run.parent) if run.is_call else run
    if to is None or to.is_terminal:
        return u.reply(0, "0", "0")
    n = to.live_n if to.live_seq == to.seq else 0
    of, _, last = run.live_batch.partition(" ")
    if of == token and int(batch) <= int(last):
        return u.reply(0, str(to.seq), str(n))
    for kind, data in pairs(deltas):
        n += 1
        to.live.append(Delta(to.seq, n, kind, run.attempt + 1, data))
    run.live_batch = f"{token} {batch}"
    to.live_seq, to.live_n = to.seq, n
    return u.reply(1, str(to.seq), str(n))
