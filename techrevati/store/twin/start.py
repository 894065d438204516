"""Starting a run: on a thread, by the policy for a busy one, or on a fork of one.

Twins: ``lua/run_start.lua``, ``lua/run_fork.lua``.
"""

from techrevati.store.twin.begin import begin_run, made_before
from techrevati.store.twin.finish import finish
from techrevati.store.twin.homes import activate, line_add
from techrevati.store.twin.records import Run, Thread, Version
from techrevati.store.twin.unit import Refused, Reply, Unit, pairs, when

KIDS_MAX = 128


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
    parent_token: str,
    *fields: str,
) -> Reply:
    """Create a run (and its thread), or return what the idempotency key already made."""
    if (before := made_before(u, idem, digest, run_id, thread_id)) is not None:
        return before
    parent = u.p.runs.get(parent_id)
    if parent_id:
        if parent is None or parent.is_terminal:
            raise Refused(-4)
        if parent_token and parent.token != parent_token:
            raise Refused(-1, parent.token)
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
    run = Run(run_id, tenant, thread_id, role, agent, parent=parent_id, extra=dict(pairs(fields)))
    run.priority, run.max_attempts = int(priority), int(attempts)
    begin_run(u, thread, run, idem, digest, when(begin, u.now), when(deadline, u.now))
    if parent is not None:
        parent.kids.add(run_id)
        run.place = parent.place  # as old as its parent, to whoever waits
        u.event(parent, "-", "call.started" if run.is_call else "child.started", child=run_id, agent=agent)

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
        _say_state_of(u, thread, back_to, back_full, base, run)
    activate(u, run)


def _say_state_of(u: Unit, thread: Thread, back_to: int, back_full: int, base: int, run: Run) -> None:
    """Append a version that says "state of `back_to`": versions only grow, and messages stay in the list."""
    old = next((version for version in thread.versions if version.version == back_to), None)
    stored, spans = (old.messages, old.spans) if old else (0, "0:")
    start = spans[:-1].rpartition(",")[2]  # where the open last span begins: it is closed, or dropped if empty
    shown = spans[: -len(start) - 1] if int(start) == stored else f"{spans}{stored},"
    view = f"{shown}{thread.stored}:"
    version, commit = thread.version + 1, f"r{run.id}"
    made = Version(version, commit, thread.commit, thread.stored, view, run.id, u.now)
    made.back_to, made.back_full = back_to, back_full
    thread.versions.append(made)
    thread.version, thread.commit, thread.spans, thread.full = version, commit, view, version
    thread.since, thread.worker, thread.base = 0, "", base if back_to > 0 else None


def run_fork(
    u: Unit,
    run_id: str,
    tenant: str,
    source_id: str,
    version: str,
    commit: str,
    state: str,
    thread_id: str,
    role: str,
    agent: str,
    turn: str,
    idem: str,
    digest: str,
    begin: str,
    deadline: str,
    priority: str,
    attempts: str,
    *fields: str,
) -> Reply:
    """Make a thread from one version of another, with a run of its own; the source stays as it is."""
    if (before := made_before(u, idem, digest, run_id, thread_id)) is not None:
        return before
    source = u.p.threads.get((tenant, source_id))
    if source is None:
        raise Refused(-4)
    of = next((one for one in source.versions if one.version == int(version)), None)
    if version != "0" and (of is None or of.commit != commit):
        raise Refused(-12, str(source.version))
    if (there := u.p.threads.get((tenant, thread_id))) is not None:
        raise Refused(-3, there.active)

    thread = u.p.threads[tenant, thread_id] = Thread(tenant, thread_id, created=u.now)
    thread.origin = f"{version} {source_id}"
    run = Run(run_id, tenant, thread_id, role, agent, turn=int(turn), extra=dict(pairs(fields)))
    run.handed = run.extra.pop("handed", "")
    run.priority, run.max_attempts = int(priority), int(attempts)
    begin_run(u, thread, run, idem, digest, when(begin, u.now), when(deadline, u.now))
    u.event(run, "-", "run.forked", source=source_id, version=version)
    if of is not None:
        made = Version(1, f"f{run_id}", "", of.messages, of.spans, run_id, u.now, kind="f", state=state)
        thread.versions, thread.messages = [made], source.messages[: of.messages]
        thread.version, thread.commit, thread.full = 1, made.commit, 1
        thread.stored, thread.spans, thread.bytes = of.messages, of.spans, source.bytes
    activate(u, run)
    return u.reply(1, run_id, thread_id)
