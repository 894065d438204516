"""Grant: lease the fairest ready run of a role.

Two levels, as start-time fair queueing does it: the tenant with the least start tag, in it the run that was
ready first (priorities move it ahead by 30 s each).

Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", 1996.

Twin: ``lua/_grant.lua``.
"""

from itertools import chain
from typing import Any

from techrevati.store.twin.homes import dequeue, offer, running
from techrevati.store.twin.records import Role, Run, Version
from techrevati.store.twin.unit import Unit, by_of

MORE = ("input", "handed", "meta", "trace", "deadline", "project")


def grant(
    u: Unit, role_name: str, claim_id: str, worker: str, ttl: int, lane_free: bool, inline: int, ticket: bool = False
) -> list[Any] | None:
    """Lease a run to a claim; the same claim gets the same grant for as long as it holds it."""
    if claim_id in u.p.claims:
        again = u.p.runs.get(u.p.claims[claim_id])
        if again is None or not again.is_leased or again.token.partition(".")[2] != claim_id:
            return None
        return granted(u, again, worker, inline)
    role = u.role(role_name)
    if ticket and role.out > 0:
        role.out -= 1
    run = pick(u, role, lane_free)
    if run is None:
        return None
    role.ready -= 1
    role.since, role.patience = u.now, 0
    thread = u.thread(run)
    thread.fence = max(thread.fence + 1, u.now // 1000)  # never repeats, also if Redis forgot its last writes
    run.token = f"{thread.fence}.{claim_id}"
    run.home, run.status, run.worker, run.why = "due", "running", worker, "lease"
    u.p.due[run.id] = u.now + ttl
    if run.cancel:
        run.cancel_by = u.now + run.grace
    running(u, run, +1)
    said: dict[str, str | int] = {"role": run.role, "turn": run.turn, "attempt": run.attempt + 1, "worker": worker}
    u.event(run, by_of(run.token), "turn.started", **said)
    u.p.claims[claim_id] = run.id
    offer(u, role)  # who takes work away and leaves some behind calls the next
    return granted(u, run, worker, inline)


def pick(u: Unit, role: Role, lane_free: bool) -> Run | None:
    """Take the run that is to run next out of the ready sets."""
    if lane_free and role.last:
        run_id = _least(role.last)
        del role.last[run_id]
        role.lasts -= 1
        return u.p.runs[run_id]
    while role.tags:
        tenant = _least(role.tags)
        tag = role.tags.pop(tenant)
        if role.cap and role.running.get(tenant, 0) >= role.cap:
            role.capped[tenant] = tag
            continue
        run = u.p.runs[_least(role.queues[tenant])]
        empty = dequeue(role, run)
        role.virtual = max(role.virtual, tag)
        finish_tag = tag + 1 / u.weight(tenant)
        (role.fair if empty else role.tags)[tenant] = finish_tag
        return run
    return None


def charge(u: Unit, run: Run, cost: float) -> None:
    """Charge a tenant what a turn cost beyond the 1 that its claim charged."""
    role = u.role(run.role)
    for tags in (role.tags, role.capped, role.fair):
        if run.tenant in tags:
            tags[run.tenant] += cost / u.weight(run.tenant)
            return


def _least(scores: dict[str, float]) -> str:
    """Give the member a sorted set has first: the least score, then the least name."""
    return min(scores, key=lambda member: (scores[member], member.encode()))


def granted(u: Unit, run: Run, worker: str, inline: int) -> list[Any]:
    """Give everything a worker needs to run a turn."""
    thread = u.thread(run)
    entries = messages = None
    if thread.version > 0 and thread.worker != worker and thread.bytes <= inline:
        entries = [entry(version) for version in thread.versions if version.version >= thread.full]
        messages = list(thread.messages)
    core: list[Any] = [run.tenant, run.thread, run.role, run.turn, run.attempt, run.max_attempts, run.cancel]
    own = {"handed": run.handed, "deadline": str(run.deadline or "")}
    kept = [own.get(name) or run.extra.get(name, "") for name in MORE]
    more = [run.agent, run.fails, run.hops, *kept, run.parent, run.inbox_n or "", run.created]
    more.append(run.extra.get("root", ""))
    inbox = list(chain.from_iterable((entry_id, e.text()) for entry_id, e in run.inbox.items()))
    journal = list(chain.from_iterable(run.journal.items()))
    head = [thread.version, thread.commit, thread.stored, thread.spans, thread.full, thread.since, thread.bytes]
    return [
        *(run.id, run.token, str(int(u.p.due[run.id])), str(u.now), [str(value) for value in core]),
        *([str(value) for value in more], inbox, journal, [str(value) for value in head], entries, messages),
    ]


def entry(version: Version) -> list[Any]:
    """Give a version as its stream keeps it."""
    fields = ["c", version.commit, "p", version.previous, "n", str(version.messages), "s", version.spans]
    fields += ["r", version.run]
    if version.turn is not None:
        fields += ["t", str(version.turn)]
    fields += ["a", str(version.at)]
    if version.kind:
        fields += [version.kind, version.state]
    if version.back_to is not None:
        fields += ["b", str(version.back_to), "bf", str(version.back_full)]
    return [f"{version.version}-0", fields]
