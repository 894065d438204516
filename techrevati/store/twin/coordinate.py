"""What coordinators and heartbeats say: handoffs placed, pools alive, partitions shared.

Twins: ``lua/`` by the functions' names.
"""

from techrevati.store.twin.finish import finish
from techrevati.store.twin.homes import due_add, leave, offer_all, ready_add
from techrevati.store.twin.records import Role
from techrevati.store.twin.unit import Reply, Unit, when


def run_route(u: Unit, run_id: str, hop: str, action: str, role: str, agent: str, at: str, why: str) -> Reply:
    """Act on a decision about a handoff, if the run still stands at that hop."""
    run = u.known(run_id)
    if run.home != "routes" or run.hops != int(hop):
        return u.reply(0)
    if action == "place":
        source = run.agent
        leave(u, run)
        run.role, run.agent, run.detail = role, agent, ""
        if run.extra.get("winds", "") != why:
            run.extra["winds"] = why
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
