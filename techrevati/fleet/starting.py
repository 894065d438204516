"""What a client says, checked and built as values; the two clients only send it.

start("writer", input, …) ──check──▶ StartSpec ──▶ run_start
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NotRequired, TypedDict

from techrevati.fleet.cards import Card
from techrevati.fleet.codec import encode
from techrevati.fleet.registry import UnknownRole
from techrevati.fleet.settings import Settings, seconds
from techrevati.store import calls
from techrevati.store.errors import BadName
from techrevati.store.keys import (
    PartitionKeys,
    RunId,
    check_tenant,
    check_thread,
    new_id,
    partition_of,
    partition_of_id,
)
from techrevati.store.records import OnBusy, Started
from techrevati.telemetry.tracing import current_traceparent

Duration = float | timedelta


def moment_of(relative: Duration | None, absolute: datetime | None, names: tuple[str, str]) -> str:
    if relative is not None and absolute is not None:
        raise ValueError(f"{names[0]} and {names[1]} were both given; fix: give one")
    if relative is not None:
        return calls.after(seconds(relative, names[0]) * 1e6)
    if absolute is not None:
        if absolute.tzinfo is None:
            raise ValueError(f"{names[1]}={absolute!r} has no time zone; fix: datetime(…, tzinfo=UTC)")
        return calls.at(absolute.timestamp() * 1e6)
    return ""


def deadline_of(deadline: Duration | datetime | None) -> str:
    if isinstance(deadline, datetime):
        return moment_of(None, deadline, ("deadline", "deadline"))
    return moment_of(deadline, None, ("deadline", "deadline"))


def check_priority(priority: int) -> int:
    if not -1000 <= priority <= 1000:
        raise ValueError(f"priority={priority} is refused: use -1000 (last) to 1000 (first), 0 is normal")
    return priority


def check_key(key: str | None) -> str | None:
    if key is not None and not 0 < len(key.encode()) <= 200:
        raise BadName("idempotency_key", key, "1-200 bytes")
    return key


class StartOptions(TypedDict, total=False):
    """What a start may say beside the agent and its input."""

    thread_id: str | None
    """Continue this conversation; without it, a new one."""
    tenant: str
    """Whose work it is: fair shares and visibility go by tenant.  "default"."""
    project_id: str | None
    """Kept with the run."""
    priority: int
    """Each step is worth 30 s of waiting, within the tenant.  0."""
    idempotency_key: str | None
    """The same key gives the same run, for its life and a day; its scope is the tenant, or the thread if named."""
    delay: Duration | None
    """Begin this much later."""
    eta: datetime | None
    """Begin then."""
    deadline: Duration | datetime | None
    """End by then, or fail."""
    on_busy: OnBusy | Literal["reject", "enqueue", "interrupt", "rollback"]
    """What to do if the thread has an active run.  "enqueue"."""
    metadata: Mapping[str, Any] | None
    """JSON, kept with the run."""


class Start(StartOptions):
    """One start of several."""

    agent: str
    input: NotRequired[Any]


def start_call(
    fleet: str, partitions: int, settings: Settings, cards: Mapping[str, Card], start: Start, turn_of: int = 0
) -> calls.Call[Started]:
    """Check a start and build its call; nothing is sent.

    A start that names neither thread nor key goes to the partition whose turn it is: `turn_of` counts a client's
    starts.  Spread evenly, nobody's few sessions meet in one partition.

    Raises:
        UnknownRole, BadName, NotJson, PayloadTooLarge, ValueError: naming what is wrong.
    """
    agent, input = start["agent"], start.get("input")
    thread_id, tenant = start.get("thread_id"), start.get("tenant", "default")
    priority, project_id = start.get("priority", 0), start.get("project_id")
    idempotency_key, metadata = start.get("idempotency_key"), start.get("metadata")
    on_busy = start.get("on_busy", OnBusy.ENQUEUE)
    card = cards.get(agent)
    if card is None:
        raise UnknownRole(agent, fleet, list(cards))
    check_tenant(tenant)
    try:
        policy = OnBusy(on_busy)
    except ValueError:
        raise ValueError(f"on_busy={on_busy!r} is refused: use {', '.join(OnBusy)}") from None
    check_priority(priority)
    check_key(idempotency_key)
    text = encode(input, "input", settings.max_payload)
    fields = {"input": text}
    if metadata:
        fields["meta"] = encode(dict(metadata), "metadata", settings.max_payload)
    if card.winds_up:
        fields["winds"] = "1"
    if project_id is not None:
        fields["project"] = project_id
    if trace := current_traceparent():
        fields["trace"] = trace
    idem = ""
    if thread_id is not None:
        partition = partition_of(tenant, check_thread(thread_id), partitions)
    elif idempotency_key is not None:
        partition = partition_of(tenant, idempotency_key, partitions)
    else:
        partition = turn_of % partitions
    if idempotency_key is not None:
        idem = digest_of([tenant, thread_id, idempotency_key])
    begin = moment_of(start.get("delay"), start.get("eta"), ("delay", "eta"))
    digest = digest_of([agent, text, thread_id, priority, project_id, fields.get("meta")])
    spec = calls.StartSpec(
        run_id=new_id(partition),
        tenant=tenant,
        thread_id=thread_id or new_id(partition),
        role=card.role,
        agent=agent,
        payload_digest=digest,
        on_busy=policy,
        has_messages=input is not None,
        idem=idem,
        idem_key=idempotency_key or "",
        begin=begin,
        deadline=deadline_of(start.get("deadline")),
        priority=priority,
        max_attempts=card.max_attempts,
        fields=fields,
    )
    return calls.start(PartitionKeys(fleet, partition), spec)


def digest_of(parts: Sequence[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def run_keys(fleet: str, partitions: int, run_id: str) -> PartitionKeys:
    """Give the partition of a run's id.

    Raises:
        BadName: it is not an id that a start gave.
    """
    partition = partition_of_id(run_id)
    if partition is None or partition >= partitions:
        raise BadName("run_id", run_id, "the id that start() gave (32 hex digits, a dot, the partition)")
    return PartitionKeys(fleet, partition)


def decide_call(
    fleet: str,
    partitions: int,
    settings: Settings,
    run_id: str,
    call_id: str,
    action: str,
    payload: Any,
    decision_id: str | None,
) -> calls.Call[bool]:
    """Check a decision and build its call; ``<run id>/<call id>`` is a call of the sub-agent of that id."""
    if action not in ("resume", "cancel"):
        raise ValueError(f"action={action!r} of call {call_id!r} is refused: use 'resume' or 'cancel'")
    entry = decision_id or f"decision:{os.urandom(8).hex()}"
    child, _, inner = call_id.partition("/")
    named = inner if inner and partition_of_id(child) is not None else call_id
    body = encode({"call_id": named, "action": action, "payload": payload}, "decision", settings.max_payload)
    return calls.inbox_put(run_keys(fleet, partitions, run_id), run_id, entry, "decision", call_id, body)


def steer_call(fleet: str, partitions: int, settings: Settings, run_id: str, message: Any) -> calls.Call[bool]:
    """Check a steering message and build its call; a string is what the user says."""
    said = {"role": "user", "content": message} if isinstance(message, str) else message
    body = encode(said, "message", settings.max_payload)
    entry = f"steer:{time.time_ns():x}{os.urandom(4).hex()}"
    return calls.inbox_put(run_keys(fleet, partitions, run_id), run_id, entry, "steer", "", body)


__all__ = [
    "Duration",
    "RunId",
    "Start",
    "StartOptions",
    "check_key",
    "check_priority",
    "deadline_of",
    "decide_call",
    "digest_of",
    "moment_of",
    "run_keys",
    "start_call",
    "steer_call",
]
