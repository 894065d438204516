"""What is said to Redis, as values: a pure function builds the call and its reply's parser.

    start(keys, ...) ──▶ Call ──SyncStore.run | AsyncStore.run──▶ Started

Replies are ``{code, roles that want a ticket sent, ...}``; negative codes become errors here.
What is built for every turn is not frozen: setting a frozen field costs four times as much.
All times are microseconds; `When` is "+us" from now, "=us" absolute, or "" for none.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from techrevati.store import errors
from techrevati.store.keys import PartitionKeys
from techrevati.store.records import Claimed, Committed, Grant, OnBusy, PartitionLease, Started, Swept
from techrevati.store.scripts import PROTOCOL

T = TypeVar("T")
Arg = str | bytes | int

HEARTBEAT_TTL = 15_000_000
LINE_MAX = 100
_batches = itertools.count(1)


class Keys(Protocol):
    """Names under one hash tag: a partition's, a gate's, a tenant's budgets."""

    @property
    def clock(self) -> str:
        """The key that every script of these names is given; it builds the others from it."""


@dataclass(slots=True)
class Call(Generic[T]):
    """One script call on the keys of one hash tag, and how to read the answer."""

    script: str
    keys: Keys
    args: Sequence[Arg]
    parse: Callable[[Sequence[Any]], T]
    role: str = ""
    """Of a claim, and of a commit that a claim of this role may ride on."""
    binary: bool = False
    """Replies are bytes as they are stored: compressed, or sealed."""
    first: Sequence[Arg] = ()
    """A plain command in front of the script, in one transaction: for bytes that Lua would copy, and need not see."""
    pieces: Sequence[bytes] = ()
    """The last argument of `first`, in pieces."""


def after(us: float) -> str:
    """Say "this long from now" in a script's words."""
    return f"+{max(0, round(us))}"


def at(us: float) -> str:
    """Say "at this time" in a script's words."""
    return f"={round(us)}"


def refuse(script: str, reply: Sequence[Any], **known: Any) -> NoReturn:
    """Raise what a negative code means; `known` are the fields the caller has at hand."""
    code = int(reply[0])
    extra = reply[2] if len(reply) > 2 else ""
    run_id = str(known.get("run_id", ""))
    match code:
        case -1:
            raise errors.LeaseLost(run_id, str(known.get("token", "")), str(extra))
        case -2:
            raise errors.IdempotencyConflict(str(known.get("key", "")), str(extra))
        case -3:
            raise errors.ThreadBusy(str(known.get("thread_id", "")), str(extra))
        case -4:
            raise errors.RunNotFound(str(known.get("parent") or run_id))
        case -5 if script == "inbox_put":
            raise errors.RunEnded(run_id, str(extra))
        case -5:
            raise errors.LineFull(str(known.get("thread_id", "")), int(extra))
        case -6 if script == "run_start":
            raise errors.TooManyChildren(str(known.get("parent", "")))
        case -6:
            raise errors.UnknownCall(run_id, str(known.get("call_id", "")))
        case -7:
            raise errors.AlreadyDecided(run_id, str(known.get("call_id", "")))
        case -8:
            raise errors.StepInDoubt(run_id, str(known.get("key", "")))
        case -9:
            raise errors.PayloadTooLarge(f"inbox of run {run_id} (entries)", int(extra), 512)
        case -10:
            raise errors.UpgradeRequired(PROTOCOL, int(extra))
        case -11:
            raise errors.NotRetriable(run_id, str(extra))
        case -13:
            raise errors.AmbiguousCall(run_id, str(known.get("call_id", "")))
        case _:
            raise errors.ScriptFault(script, repr(reply))


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSpec:
    """All that a start says; see ``lua/run_start.lua``."""

    run_id: str
    tenant: str
    thread_id: str
    role: str
    agent: str
    payload_digest: str
    on_busy: OnBusy = OnBusy.ENQUEUE
    has_messages: bool = True
    idem: str = ""
    idem_key: str = ""
    begin: str = ""
    deadline: str = ""
    priority: int = 0
    max_attempts: int = 3
    parent: str = ""
    parent_token: str = ""
    line_max: int = LINE_MAX
    fields: Mapping[str, str]


def start(keys: PartitionKeys, spec: StartSpec) -> Call[Started]:
    def parse(reply: Sequence[Any]) -> Started:
        if reply[0] < 0:
            refuse(
                "run_start",
                reply,
                key=spec.idem_key,
                thread_id=spec.thread_id,
                parent=spec.parent,
                run_id=spec.parent or spec.run_id,
                token=spec.parent_token,
            )
        return Started(reply[2], reply[3], reply[0] == 1)

    args: list[Arg] = [
        spec.run_id,
        spec.tenant,
        spec.thread_id,
        spec.role,
        spec.agent,
        spec.on_busy.value,
        int(spec.has_messages),
        spec.idem,
        spec.payload_digest,
        spec.begin,
        spec.deadline,
        spec.priority,
        spec.max_attempts,
        spec.parent,
        spec.line_max,
        spec.parent_token,
    ]
    for name, value in spec.fields.items():
        args += (name, value)
    return Call("run_start", keys, args, parse)


@dataclass(slots=True, kw_only=True)
class ClaimSpec:
    """Who claims: a role's worker, for how long, with or without a ticket in hand."""

    role: str
    claim_id: str
    worker: str
    ttl_us: int
    lane_free: bool = True
    from_ticket: bool = True
    inline: int = 16_384


def _claimed(reply: Sequence[Any]) -> Claimed:
    if reply[0] < 0:
        refuse("run_claim", reply)
    if reply[0] == 1:
        return Claimed(Grant.parse(reply[2]), 0)
    return Claimed(None, int(reply[2]))


def claim(keys: PartitionKeys, spec: ClaimSpec) -> Call[Claimed]:
    return Call("run_claim", keys, (spec.role, spec.claim_id, spec.worker, *_how(spec)), _claimed, spec.role)


def _how(spec: ClaimSpec) -> tuple[Arg, ...]:
    return spec.ttl_us, "1" if spec.lane_free else "0", "1" if spec.from_ticket else "0", spec.inline


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """One call a run waits for: its ids, when it expires and what is decided then."""

    call_id: str
    aliases: tuple[str, str] = ("", "")
    expires: str = ""
    default: str = ""


@dataclass(slots=True, kw_only=True)
class CommitSpec:
    """The end of a turn; see ``lua/turn_commit.lua``."""

    run_id: str
    token: str
    move: str
    worker: str
    role: str = ""
    """The run's, if a claim that goes out in the same breath may ride on this commit."""
    when: str = ""
    target: str = ""
    body: str = ""
    state_kind: str = ""
    state: str = ""
    cost: str = ""
    usage: str = ""
    keep_from: str = ""
    bytes: int = 0
    messages: Sequence[str] = ()
    events: Sequence[tuple[str, str]] = ()
    inbox: Sequence[str] = ()
    calls: Sequence[Suspended] = ()
    journal: Sequence[tuple[str, str]] = ()


def commit(keys: PartitionKeys, spec: CommitSpec, then: ClaimSpec | None = None) -> Call[Committed]:
    """End a turn; with `then`, claim the next of the same role in the same script."""

    def parse(reply: Sequence[Any]) -> Committed:
        if reply[0] < 0:
            refuse("turn_commit", reply, run_id=spec.run_id, token=spec.token)
        return Committed(
            reply[0] == 1,
            int(reply[2]) if reply[2].isdigit() else 0,
            "" if reply[3] == "-" else reply[3],
            Grant.parse(reply[4]) if isinstance(reply[4], list) else None,
        )

    args: list[Arg] = [
        spec.run_id,
        spec.token,
        spec.move,
        spec.when,
        spec.target,
        spec.body,
        spec.state_kind,
        spec.state,
        spec.worker,
        spec.cost,
        spec.usage,
        spec.keep_from,
        spec.bytes,
    ]
    if then is None:
        args += ("", "0", "0", "0", "0")
    else:
        args += (then.claim_id, *_how(then))
    args += (len(spec.messages), len(spec.events), len(spec.inbox), len(spec.calls), len(spec.journal))
    args += spec.messages
    for pair in spec.events:
        args += pair
    args += spec.inbox
    for suspended in spec.calls:
        args += (suspended.call_id, *suspended.aliases, suspended.expires, suspended.default)
    for pair in spec.journal:
        args += pair
    return Call("turn_commit", keys, args, parse, "" if then else spec.role)


def _flat(results: Iterable[tuple[str, str]]) -> list[Arg]:
    return [part for pair in results for part in pair]


def release(keys: PartitionKeys, run_id: str, token: str, journal: Iterable[tuple[str, str]] = ()) -> Call[bool]:
    def parse(reply: Sequence[Any]) -> bool:
        if reply[0] < 0:
            refuse("run_release", reply, run_id=run_id, token=token)
        return bool(reply[0] == 1)

    return Call("run_release", keys, [run_id, token, *_flat(journal)], parse)


RENEWED, STOPPING, LOST = 1, 2, 0


def renew(keys: PartitionKeys, ttl_us: int, leases: Sequence[tuple[str, str]]) -> Call[list[int]]:
    """Prolong leases; the answer holds RENEWED, STOPPING (renewed, but to be cancelled) or LOST for each."""

    def parse(reply: Sequence[Any]) -> list[int]:
        if reply[0] < 0:
            refuse("run_renew", reply)
        return [int(code) for code in reply[2]]

    return Call("run_renew", keys, [ttl_us, *_flat(leases)], parse)


def step_begin(
    keys: PartitionKeys,
    run_id: str,
    token: str,
    key: str,
    policy: str,
    journal: Iterable[tuple[str, str]] = (),
) -> Call[str | None]:
    """Note that a step begins; gives the JSON of its result if it has one."""

    def parse(reply: Sequence[Any]) -> str | None:
        if reply[0] < 0:
            refuse("step_begin", reply, run_id=run_id, token=token, key=key)
        return str(reply[2]) if reply[0] == 2 else None

    return Call("step_begin", keys, [run_id, token, key, policy, *_flat(journal)], parse)


def step_end(keys: PartitionKeys, run_id: str, token: str, journal: Iterable[tuple[str, str]]) -> Call[str]:
    """Journal results, the step's own last; gives the JSON that stands for it."""

    def parse(reply: Sequence[Any]) -> str:
        if reply[0] < 0:
            refuse("step_end", reply, run_id=run_id, token=token)
        return str(reply[2])

    return Call("step_end", keys, [run_id, token, *_flat(journal)], parse)


def live_append(
    keys: PartitionKeys, run_id: str, token: str, cap: int, ttl_ms: int, deltas: Iterable[tuple[str, str]]
) -> Call[tuple[int, int]]:
    """Add deltas; gives the event they follow and the last one's number behind it.

    A token belongs to one process, so a count within it tells a batch that is sent again from the next.
    """

    def parse(reply: Sequence[Any]) -> tuple[int, int]:
        if reply[0] < 0:
            refuse("live_append", reply, run_id=run_id, token=token)
        return int(reply[2]), int(reply[3])

    return Call("live_append", keys, [run_id, token, cap, ttl_ms, next(_batches), *_flat(deltas)], parse)


def inbox_put(keys: PartitionKeys, run_id: str, entry_id: str, kind: str, call_id: str, body: str) -> Call[bool]:
    """Hand something to a run; False if this very entry was there."""

    def parse(reply: Sequence[Any]) -> bool:
        if reply[0] < 0:
            refuse("inbox_put", reply, run_id=run_id, call_id=call_id)
        return bool(reply[0] == 1)

    return Call("inbox_put", keys, [run_id, entry_id, kind, call_id, body], parse)


def cancel(keys: PartitionKeys, run_id: str, reason: str, grace_us: int) -> Call[str]:
    """Cancel a run and its sub-agents; gives its status afterwards."""

    def parse(reply: Sequence[Any]) -> str:
        if reply[0] < 0:
            refuse("run_cancel", reply, run_id=run_id)
        return str(reply[2])

    return Call("run_cancel", keys, [run_id, reason or "cancelled", grace_us], parse)


def retry(keys: PartitionKeys, run_id: str, line_max: int = LINE_MAX) -> Call[str]:
    """Send a run that ended unwell back to work; gives its home."""

    def parse(reply: Sequence[Any]) -> str:
        if reply[0] < 0:
            refuse("run_retry", reply, run_id=run_id)
        return str(reply[2])

    return Call("run_retry", keys, [run_id, line_max], parse)


def route(
    keys: PartitionKeys,
    run_id: str,
    hop: int,
    action: str,
    *,
    role: str = "",
    agent: str = "",
    when: str = "",
    why: str = "",
) -> Call[bool]:
    """Act on a handoff; False if the run stands elsewhere by now."""

    def parse(reply: Sequence[Any]) -> bool:
        if reply[0] < 0:
            refuse("run_route", reply, run_id=run_id)
        return bool(reply[0] == 1)

    return Call("run_route", keys, [run_id, hop, action, role, agent, when, why], parse)


def sweep(keys: PartitionKeys, *, limit: int = 128, expire: bool = True, patience_us: int = 1_000_000) -> Call[Swept]:
    def parse(reply: Sequence[Any]) -> Swept:
        if reply[0] < 0:
            refuse("run_sweep", reply)
        return Swept(int(reply[2]), int(reply[3]) if reply[3] else None, int(reply[4]), int(reply[5]))

    return Call("run_sweep", keys, [limit, "1" if expire else "0", patience_us], parse)


def pool_beat(
    keys: PartitionKeys, role: str, worker: str, places: int, template: str, ttl_us: int = HEARTBEAT_TTL
) -> Call[tuple[int, int]]:
    """Say that a worker lives (places 0: leaves); gives the role's window and ready count."""

    def parse(reply: Sequence[Any]) -> tuple[int, int]:
        if reply[0] < 0:
            refuse("pool_beat", reply)
        return int(reply[2]), int(reply[3])

    return Call("pool_beat", keys, [role, worker, places, ttl_us, template], parse)


def partition_lease(keys: PartitionKeys, holder: str, ttl_us: int) -> Call[PartitionLease]:
    def parse(reply: Sequence[Any]) -> PartitionLease:
        if reply[0] < 0:
            refuse("partition_lease", reply)
        if reply[0] == 1:
            return PartitionLease(True, holder, int(reply[2]))
        return PartitionLease(False, str(reply[2]), int(reply[3]))

    return Call("partition_lease", keys, [holder, ttl_us], parse)
