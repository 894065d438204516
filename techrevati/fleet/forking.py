"""Forking: where a run stood after a checkpoint, and the start of another from there.

    checkpoint ─▶ its run's record and events ─▶ Standing (agent, turn, handoff) ─▶ ForkSpec ─▶ run_fork

Without an input the fork goes on as its source would have; with one it is a new run over the old conversation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from techrevati.fleet.asking import Plan
from techrevati.fleet.cards import Card
from techrevati.fleet.codec import encode
from techrevati.fleet.listing import record_of
from techrevati.fleet.registry import UnknownRole
from techrevati.fleet.settings import Settings
from techrevati.fleet.starting import Duration, check_key, check_priority, deadline_of, digest_of, moment_of
from techrevati.fleet.versions import STRIDE, as_text, reading_state, reading_version
from techrevati.runtime.errors import TechrevatiError
from techrevati.store import thread_calls
from techrevati.store.calls import Call
from techrevati.store.errors import RunNotFound
from techrevati.store.keys import PartitionKeys, check_tenant, new_id, partition_of
from techrevati.store.records import Checkpoint, Event, Started, pairs
from techrevati.telemetry.tracing import current_traceparent


class ForkOptions(TypedDict, total=False):
    """What a fork may say beside its version."""

    input: Any
    """A new run's input, as in `start`; left out, the fork goes on where the source would have."""
    agent: str | None
    """Who has the first turn; left out, the agent who would have had the next one."""
    idempotency_key: str | None
    """The same key gives the same fork; its scope is the source thread."""
    priority: int
    delay: Duration | None
    deadline: Duration | datetime | None
    metadata: Mapping[str, Any] | None
    """Left out, the source's."""


class ForkUnclear(TechrevatiError):
    """Nothing says any more how the source went on from that version."""

    def __init__(self, thread_id: str, version: int, missing: str) -> None:
        super().__init__(thread_id, version, missing)
        self.thread_id, self.version, self.missing = thread_id, version, missing

    def __str__(self) -> str:
        return (
            f"version {self.version} of thread {self.thread_id!r} can be forked, but the run that made it is not known "
            f"any more, so its {self.missing} is unclear; fix: give {self.missing}="
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run would have gone on from one of its checkpoints; "" is not known."""

    agent: str = ""
    turn: int = 1
    handed: str = ""


def standing_after(events: Sequence[Event], turn: int | None, fields: Mapping[str, str]) -> Standing:
    """Say how a run went on after it had committed `turn` (None: before its first), from its events and its record.

    The handoff that a run got last is in its record; what an earlier one carried is not kept.
    """
    agent, begins, handoffs, committed = "", 0, 0, turn is None
    for event in events:
        match event.type:
            case "run.queued":
                agent = event.data["agent"]
            case "turn.started":
                begins = begins or event.data["turn"]
                if committed:
                    break
            case "turn.committed" if event.data["turn"] == turn or event.data["move"] == "handoff":
                if event.data["move"] == "handoff":
                    agent, handoffs = event.data["target"], handoffs + 1
                committed = committed or event.data["turn"] == turn
            case "handoff.placed":
                agent = event.data["target"]
    last = handoffs > 0 and handoffs == int(fields.get("hops") or 0)
    following = begins or 1 if turn is None else turn + 1
    return Standing(agent or fields.get("agent", ""), following, fields.get("handed", "") if last else "")


def fork_plan(
    fleet: str,
    partitions: int,
    settings: Settings,
    cards: Mapping[str, Card],
    tenant: str,
    thread_id: str,
    at: int | None,
    options: ForkOptions,
) -> Plan[Call[Started]]:
    """Check a fork, read what it begins with, and build its call; nothing is written.

    Raises:
        ThreadNotFound, VersionGone, ForkUnclear, UnknownRole, BadName, NotJson, PayloadTooLarge, ValueError.
    """
    check_tenant(tenant)
    priority, key = check_priority(options.get("priority", 0)), check_key(options.get("idempotency_key"))
    begin, deadline = moment_of(options.get("delay"), None, ("delay", "eta")), deadline_of(options.get("deadline"))
    fields: dict[str, str] = {}
    if "input" in options:
        fields["input"] = encode(options["input"], "input", settings.max_payload)
    if metadata := options.get("metadata"):
        fields["meta"] = encode(dict(metadata), "metadata", settings.max_payload)
    if trace := current_traceparent():
        fields["trace"] = trace

    partition = partition_of(tenant, thread_id, partitions)
    keys = PartitionKeys(fleet, partition)
    entry = yield from reading_version(keys, tenant, thread_id, at)
    state = yield from reading_state(keys, tenant, thread_id, entry)
    source, standing = yield from _standing(keys, tenant, thread_id, entry)
    version = entry.version if entry else 0
    for name in ("input", "meta", "project"):
        if name in source:
            fields.setdefault(name, source[name])
    if not source and "input" not in options:
        raise ForkUnclear(thread_id, version, "input")
    goes_on = "input" not in options
    if goes_on and standing.handed:
        fields["handed"] = standing.handed
    agent = options.get("agent") or standing.agent
    if not agent:
        raise ForkUnclear(thread_id, version, "agent")
    card = cards.get(agent)
    if card is None:
        raise UnknownRole(agent, fleet, list(cards))
    digest = digest_of([thread_id, version, agent, fields.get("input"), fields.get("meta"), priority, goes_on])
    if card.winds_up:
        fields["winds"] = "1"
    spec = thread_calls.ForkSpec(
        run_id=new_id(partition),
        tenant=tenant,
        source=thread_id,
        version=version,
        commit=entry.commit if entry else "",
        state=as_text(state),
        thread_id=new_id(partition),
        role=card.role,
        agent=agent,
        turn=standing.turn if goes_on else 1,
        payload_digest=digest,
        idem=digest_of([tenant, thread_id, "fork", key]) if key else "",
        idem_key=key or "",
        begin=begin,
        deadline=deadline,
        priority=priority,
        max_attempts=card.max_attempts,
        fields=fields,
    )
    return thread_calls.fork(keys, spec)


def _standing(
    keys: PartitionKeys, tenant: str, thread_id: str, entry: Checkpoint | None
) -> Plan[tuple[dict[str, str], Standing]]:
    """Read the record of the run that made a checkpoint (none: it is gone), and how it went on from there."""
    while entry is not None and entry.back_to:  # "state of k" goes on as k would have
        entry = yield from reading_version(keys, tenant, thread_id, entry.back_to)
    if entry is None or entry.back_to == 0:
        (first,) = yield [("ZRANGE", keys.runsof(tenant, thread_id), 0, 0)]
        run_id, turn = first[0] if first else "", None
    else:
        run_id, turn = entry.run_id, entry.turn
    flat, found = yield [("HGETALL", keys.run(run_id)), ("XRANGE", keys.events(run_id), "-", "+")]
    if record_of(run_id, flat) is None:
        return {}, Standing()
    fields: dict[str, str] = pairs(flat)
    return fields, standing_after([Event.parse(run_id, one) for one in found], turn, fields)


def last_version_of(keys: PartitionKeys, run_id: str) -> Plan[tuple[str, str, int]]:
    """Give the tenant, the thread and the newest version of a run; before its first, the one it began with.

    Raises:
        RunNotFound.
    """
    (flat,) = yield [("HGETALL", keys.run(run_id))]
    record = record_of(run_id, flat)
    if record is None:
        raise RunNotFound(run_id)
    place = "+"
    while True:
        ckpt = keys.checkpoints(record.tenant, record.thread_id)
        (found,) = yield [("XREVRANGE", ckpt, place, "-", "COUNT", STRIDE)]
        strip = [Checkpoint.parse(entry) for entry in found]
        mine = next((one.version for one in strip if one.run_id == run_id), None)
        if mine is not None:
            return record.tenant, record.thread_id, mine
        if len(strip) < STRIDE:
            return record.tenant, record.thread_id, int(pairs(flat).get("v0") or 0)
        place = f"({strip[-1].version}-0"
