"""Homes: where a run that is not terminal stands, and how it gets there and leaves.

    ready (or last) ── claim ──▶ due (leased) ── commit ──▶ ready · due · routes · ended
    line ── the thread's active run ended ──▶ ready · due · routes

Twin: ``lua/_homes.lua``.
"""

from techrevati.store.twin.records import NEVER, Role, Run, Thread
from techrevati.store.twin.unit import S, Unit

PRIORITY_HEAD_START = 30 * S
TURN_HAD = 5 * S
BELLS = 1024


def offer(u: Unit, role: Role, *, sure: bool = False) -> None:
    """Send a ticket while fewer are out than work and places ask for.

    `sure` sends one although the account says enough are out: a dead worker may have held them.
    """
    if role.window > 0 and role.ready > 0 and (sure or role.out < min(role.ready, role.window)):
        role.out += 1
        if role.template:
            role.sent += 1
            ticket = role.template.replace("@TICKET@", f"{u.p.number}-{role.sent}")
            u.p.tickets.setdefault(role.name, []).insert(0, ticket)
        else:
            u.wanted.append(role.name)


def offer_all(u: Unit, role: Role, limit: int) -> None:
    for _ in range(min(role.ready, role.window, limit) - role.out):
        offer(u, role)


def ready_add(u: Unit, run: Run, *, quiet: bool = False) -> None:
    """Make a run claimable: in its tenant's queue by first-ready time, or in the lane of last attempts.

    Each turn a run has had counts as five seconds that it has waited less, so that the sessions of a burst
    advance together and an old session still goes first (decision 0007).
    """
    role = u.role(run.role)
    if run.place is None:
        run.place = u.now - run.priority * PRIORITY_HEAD_START
    run.status, run.why, run.until = "queued", "", None
    if run.max_attempts > 1 and run.attempt >= run.max_attempts - 1:
        run.home = "last"
        role.last[run.id] = run.place
        role.lasts += 1
    else:
        run.home = "ready"
        queue = role.queues.setdefault(run.tenant, {})
        queue[run.id] = run.place + max(0, run.turn - 1) * TURN_HAD
        if len(queue) == 1:  # a tenant joins at what it had used up, but not behind the others' time
            role.tags[run.tenant] = max(role.virtual, role.fair.pop(run.tenant, 0.0))
    if role.ready == 0:
        role.since = u.now
    role.ready += 1
    if not quiet:
        offer(u, role)


def dequeue(role: Role, run: Run) -> bool:
    """Take a run from its tenant's queue; says if that queue is now empty."""
    queue = role.queues[run.tenant]
    del queue[run.id]
    if not queue:
        del role.queues[run.tenant]
    return not queue


def uncap(u: Unit, role: Role, tenant: str) -> None:
    """Let a tenant that is below its cap again compete with the tag it had."""
    if tenant in role.capped:
        role.tags[tenant] = role.capped.pop(tenant)
        offer(u, role)


def running(u: Unit, run: Run, delta: int) -> None:
    """Count the turns a tenant runs now, where a cap was set, and only those claimed since."""
    role = u.role(run.role)
    if (delta > 0 and role.cap is None) or (delta < 0 and not run.counted):
        return
    run.counted = delta > 0
    role.running[run.tenant] = role.running.get(run.tenant, 0) + delta
    if role.running[run.tenant] <= 0:
        del role.running[run.tenant]
    if delta < 0:
        uncap(u, role, run.tenant)


def due_add(u: Unit, run: Run, at: float, why: str) -> None:
    """Have a run looked at again at a time, or never (only what it waits for moves it then)."""
    run.home, run.status, run.why = "due", "waiting", why
    run.until = None if at == NEVER else int(at)
    u.p.due[run.id] = at


def routes_add(u: Unit, run: Run) -> None:
    """Stand as a handoff to be placed, and wake a coordinator."""
    run.home, run.status, run.why, run.until = "routes", "waiting", "handoff", None
    u.p.routes[run.id] = u.now
    u.p.bells = min(u.p.bells + 1, BELLS)


def line_add(u: Unit, run: Run) -> None:
    run.home, run.status, run.why, run.until = "line", "queued", "", None
    u.thread(run).line.append(run.id)


def leave(u: Unit, run: Run) -> None:
    """Take a run out of its home; a leased one loses its token."""
    role = u.p.roles.get(run.role)
    match run.home:
        case "ready":
            assert role is not None
            if dequeue(role, run):
                tag = role.tags.pop(run.tenant, None) or role.capped.pop(run.tenant, 0.0)
                if tag > role.virtual:
                    role.fair[run.tenant] = tag
            role.ready -= 1
        case "last":
            assert role is not None
            del role.last[run.id]
            role.lasts -= 1
            role.ready -= 1
        case "due":
            u.p.due.pop(run.id, None)
            if run.token:
                run.token = ""
                running(u, run, -1)
        case "routes":
            u.p.routes.pop(run.id, None)
        case "line":
            u.thread(run).line.remove(run.id)


def activate(u: Unit, run: Run) -> None:
    """Make a run the active one of its thread, and note what a rollback would return to."""
    thread: Thread = u.thread(run)
    thread.active, thread.idle = run.id, False
    run.rollback_to, run.rollback_full, run.rollback_base = thread.version, thread.full, thread.lowest
    if run.resume == "routes":  # sent back after its handoff could not be placed
        run.resume = ""
        routes_add(u, run)
    elif (run.begin or 0) > u.now:
        due_add(u, run, run.begin or 0, "start")
    else:
        ready_add(u, run)
