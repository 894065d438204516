"""What the scripts hand back: values, nothing behind them.

flat arrays of strings ──parse──▶ Grant, Committed, RunRecord, Event
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from techrevati.store.keys import CALL_PREFIX

decode_json = msgspec.json.Decoder().decode


class Status(StrEnum):
    """Where a run is, as its caller sees it."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    DEAD = "dead"

    @property
    def is_terminal(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING, Status.WAITING)


class OnBusy(StrEnum):
    """What a start does when its thread has an active run."""

    REJECT = "reject"
    ENQUEUE = "enqueue"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


def pairs(flat: Sequence[Any]) -> dict[str, Any]:
    """Give a flat field, value, ... reply as a dict."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _int(fields: Mapping[str, str], name: str) -> int:
    return int(fields.get(name) or 0)


def _seconds(fields: Mapping[str, str], name: str) -> float | None:
    return int(value) / 1e6 if (value := fields.get(name)) else None


def _json(fields: Mapping[str, str], name: str) -> Any:
    return decode_json(value) if (value := fields.get(name)) else None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as the store knows it; times are seconds since the epoch.

    `turn` is the turn it is in or waits for; of a completed or failed run, the last it committed.
    """

    run_id: str
    thread_id: str
    tenant: str
    agent: str
    role: str
    status: Status
    home: str
    turn: int
    attempt: int
    failures: int
    hops: int
    seq: int
    priority: int
    why: str
    detail: str
    until: float | None
    created: float | None
    ended: float | None
    deadline: float | None
    worker: str
    parent: str
    cancelling: str
    input: Any
    output: Any
    error: Any
    metadata: Any
    waits_for: Any
    project_id: str
    input_tokens: int
    output_tokens: int
    cost_micros: int

    @property
    def is_call(self) -> bool:
        """Say if it is a call of a tool in a pool of its own, made by the run `parent`."""
        return self.agent.startswith(CALL_PREFIX)

    @classmethod
    def parse(cls, run_id: str, fields: Mapping[str, str]) -> "RunRecord":
        status = Status(fields.get("status", "queued"))
        over = status in (Status.COMPLETED, Status.FAILED)
        return cls(
            run_id=run_id,
            thread_id=fields.get("thread", ""),
            tenant=fields.get("tenant", ""),
            agent=fields.get("agent", ""),
            role=fields.get("role", ""),
            status=status,
            home=fields.get("home", ""),
            turn=_int(fields, "turn") - over,
            attempt=_int(fields, "attempt"),
            failures=_int(fields, "fails"),
            hops=_int(fields, "hops"),
            seq=_int(fields, "seq"),
            priority=_int(fields, "priority"),
            why=fields.get("why", ""),
            detail=fields.get("detail", ""),
            until=_seconds(fields, "until"),
            created=_seconds(fields, "created"),
            ended=_seconds(fields, "ended"),
            deadline=_seconds(fields, "deadline"),
            worker=fields.get("worker", ""),
            parent=fields.get("parent", ""),
            cancelling=fields.get("cancel") or fields.get("reason", ""),
            input=_json(fields, "input"),
            output=_json(fields, "output"),
            error=_json(fields, "error"),
            metadata=_json(fields, "meta"),
            waits_for=_json(fields, "waits") if fields.get("why") in ("decision", "child") else None,
            project_id=fields.get("project", ""),
            input_tokens=_int(fields, "tin"),
            output_tokens=_int(fields, "tout"),
            cost_micros=_int(fields, "micros"),
        )


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """Something from outside that the turn is to see; `entry_id` is named by the commit that used it."""

    entry_id: str
    order: int
    kind: str
    body: Any

    @classmethod
    def parse(cls, entry_id: str, text: str) -> "InboxEntry":
        order, kind, body = text.split(" ", 2)
        return cls(entry_id, int(order), kind, decode_json(body))


def inbox_of(fields: Mapping[str, str]) -> list[InboxEntry]:
    """Read a run's inbox, the oldest entry first."""
    return sorted((InboxEntry.parse(*item) for item in fields.items()), key=lambda e: e.order)


@dataclass(slots=True)
class ThreadHead:
    """The newest version of a thread, without its contents."""

    version: int
    commit: str
    messages: int
    spans: str
    full: int
    since: int
    bytes: int

    @classmethod
    def parse(cls, reply: Sequence[str]) -> "ThreadHead":
        return cls(
            version=int(reply[0] or 0),
            commit=reply[1],
            messages=int(reply[2] or 0),
            spans=reply[3] or "0:",
            full=int(reply[4] or 0),
            since=int(reply[5] or 0),
            bytes=int(reply[6] or 0),
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One version of a thread as its stream keeps it: a full state, a delta, or "as version k"."""

    version: int
    commit: str
    previous: str
    messages: int
    spans: str
    full: str | None
    delta: str | None
    back_to: int | None
    back_full: int | None
    run_id: str = ""
    turn: int | None = None
    at_us: int = 0

    @classmethod
    def parse(cls, entry: Sequence[Any]) -> "Checkpoint":
        fields = pairs(entry[1])
        return cls(
            version=int(entry[0].split("-")[0]),
            commit=fields["c"],
            previous=fields["p"],
            messages=int(fields["n"]),
            spans=fields["s"],
            full=fields.get("f"),
            delta=fields.get("d"),
            back_to=int(fields["b"]) if "b" in fields else None,
            back_full=int(fields["bf"] or 0) if "bf" in fields else None,
            run_id=fields["r"],
            turn=int(fields["t"]) if "t" in fields else None,
            at_us=int(fields.get("a") or 0),
        )


_GRANT_CORE = ("tenant", "thread", "role", "turn", "attempt", "maxa", "cancel")
_GRANT_MORE = (
    *("agent", "fails", "hops", "input", "handed", "meta", "trace", "deadline"),
    *("project", "parent", "inbox_n", "created", "root"),
)


@dataclass(slots=True)
class Grant:
    """A leased turn and all that is needed to run it."""

    run_id: str
    token: str
    lease_us: int
    now_us: int
    fields: dict[str, str]
    inbox: list[InboxEntry]
    journal: dict[str, str]
    thread: ThreadHead
    checkpoints: list[Checkpoint] | None
    messages: list[str] | None

    @classmethod
    def parse(cls, reply: Sequence[Any]) -> "Grant":
        run_id, token, lease, now, core, more, inbox, journal, thread, entries, messages = reply
        fields = dict(zip(_GRANT_CORE, core, strict=True))
        for name, value in zip(_GRANT_MORE, more, strict=True):
            if value:
                fields[name] = value
        return cls(
            run_id=run_id,
            token=token,
            lease_us=int(lease),
            now_us=int(now),
            fields=fields,
            inbox=inbox_of(pairs(inbox)) if inbox else [],
            journal=pairs(journal) if journal else {},
            thread=ThreadHead.parse(thread),
            checkpoints=None if entries is None else [Checkpoint.parse(entry) for entry in entries],
            messages=messages,
        )


@dataclass(slots=True)
class Claimed:
    """The answer to a claim: a grant, or how much ready work another lane holds."""

    grant: Grant | None
    ready: int


@dataclass(slots=True)
class Committed:
    """The answer to a commit; `first` is False when the same commit had been made before."""

    first: bool
    version: int
    home: str
    grant: Grant | None


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to a start; `created` is False when the idempotency key knew the run already."""

    run_id: str
    thread_id: str
    created: bool


@dataclass(frozen=True, slots=True)
class Deleted:
    """What one call of a deletion did: `more` says that runs are left, for the next call or the sweep."""

    known: bool
    forgotten: int
    more: bool


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did, and when the next thing is due (us, None = nothing stands there)."""

    moved: int
    next_us: int | None
    expired: int
    dead: int


@dataclass(frozen=True, slots=True)
class PartitionLease:
    """Who sweeps a partition, and until when (us on the server's clock)."""

    held: bool
    holder: str
    until_us: int


_NUMBERS = frozenset({"turn", "attempt", "version"})


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a run; `id` is a cursor that `events(after=…)` takes.

    `seq` is dense over durable events; `n` > 0 marks a delta behind event `seq`.
    """

    id: str
    seq: int
    n: int
    type: str
    at: float
    run_id: str
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, run_id: str, entry: Sequence[Any]) -> "Event":
        seq, _, n = entry[0].partition("-")
        fields = pairs(entry[1])
        kind, at, by = fields.pop("type"), int(fields.pop("at")), fields.pop("c")
        body = fields.pop("data", None)
        data: dict[str, Any] = {}
        for name, value in fields.items():
            if name in _NUMBERS:
                data[name] = int(value)
            elif name == "until":
                data[name] = int(value) / 1e6
            elif name == "error":
                data[name] = decode_json(value)
            else:
                data[name] = value
        if body is not None:
            decoded = decode_json(body)
            data.update(decoded if isinstance(decoded, dict) else {"value": decoded})
        return cls(f"{seq}.{n}~{by}", int(seq), int(n), kind, at / 1e6, run_id, data)

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "seq": self.seq,
            "type": self.type,
            "at": self.at,
            "run_id": self.run_id,
            "data": self.data,
        }
