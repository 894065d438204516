"""A thread at any of its versions: its messages, its state, who made it.

    checkpoint v ─▶ back to the last full state ─▶ fold what follows ─▶ state
                 └▶ spans ─▶ the messages it showed

A version never changes, so what is read of one may be used later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from techrevati.fleet.asking import Plan
from techrevati.fleet.history import fold, ranges
from techrevati.fleet.state import RawState, write_full
from techrevati.store.errors import ThreadNotFound, VersionGone
from techrevati.store.keys import PartitionKeys
from techrevati.store.records import Checkpoint, decode_json

STRIDE = 32
_HEAD = ("version", "n", "spans", "active", "created", "origin", "commit")


@dataclass(frozen=True, slots=True)
class ThreadRecord:
    """A thread as it stands; times are seconds since the epoch."""

    thread_id: str
    tenant: str
    version: int
    messages: int
    active_run: str
    in_line: int
    created: float
    forked_from: tuple[str, int] | None
    """The thread and version it was forked from."""


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """One version of a thread that may be forked or read; `turn` is None where no turn made it (rollback, fork)."""

    version: int
    run_id: str
    turn: int | None
    at: float
    messages: int
    back_to: int | None


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Some messages, the oldest first, and the cursor of those after them (None: there are no more)."""

    messages: list[Any]
    cursor: int | None


def shown(spans: str, stored: int) -> int:
    """Give how many messages a version shows."""
    return sum(end - start for start, end in ranges(spans, stored))


def reading_thread(keys: PartitionKeys, tenant: str, thread_id: str) -> Plan[ThreadRecord]:
    """Read a thread's head.

    Raises:
        ThreadNotFound.
    """
    head, line = yield [("HMGET", keys.thread(tenant, thread_id), *_HEAD), ("LLEN", keys.line(tenant, thread_id))]
    if head[0] is None:
        raise ThreadNotFound(thread_id, tenant)
    version, n, spans, active, created, origin, _ = head
    at, _, source = (origin or "").partition(" ")
    return ThreadRecord(
        thread_id=thread_id,
        tenant=tenant,
        version=int(version),
        messages=shown(spans, int(n)),
        active_run=active or "",
        in_line=int(line),
        created=int(created) / 1e6,
        forked_from=(source, int(at)) if source else None,
    )


def reading_checkpoints(
    keys: PartitionKeys, tenant: str, thread_id: str, before: int | None, limit: int
) -> Plan[list[CheckpointRecord]]:
    """Read the newest versions that are kept, below `before`.

    Raises:
        ThreadNotFound.
    """
    if limit < 1:
        raise ValueError(f"limit={limit} is refused: give 1 or more")
    top = "+" if before is None else f"({before}-0"
    version, found = yield [
        ("HGET", keys.thread(tenant, thread_id), "version"),
        ("XREVRANGE", keys.checkpoints(tenant, thread_id), top, "-", "COUNT", limit),
    ]
    if version is None:
        raise ThreadNotFound(thread_id, tenant)
    return [
        CheckpointRecord(
            one.version, one.run_id, one.turn, one.at_us / 1e6, shown(one.spans, one.messages), one.back_to
        )
        for one in map(Checkpoint.parse, found)
    ]


def reading_version(keys: PartitionKeys, tenant: str, thread_id: str, at: int | None) -> Plan[Checkpoint | None]:
    """Read one checkpoint, the newest if `at` is None; None is the empty thread before the first.

    Raises:
        ThreadNotFound, VersionGone.
    """
    if at is not None and at < 0:
        raise ValueError(f"at={at} is refused: versions count from 1, and 0 is the empty thread before the first")
    ckpt = keys.checkpoints(tenant, thread_id)
    place = "+" if at is None else f"{at}-0"
    newest, found = yield [
        ("HGET", keys.thread(tenant, thread_id), "version"),
        ("XREVRANGE", ckpt, place, "-", "COUNT", 1),
    ]
    if newest is None:
        raise ThreadNotFound(thread_id, tenant)
    if at == 0 or (newest == "0" and at is None):
        return None
    entry = Checkpoint.parse(found[0]) if found else None
    if entry is None or at not in (None, entry.version):
        raise (yield from _gone(keys, tenant, thread_id, int(at or 0), int(newest)))
    return entry


def _gone(keys: PartitionKeys, tenant: str, thread_id: str, at: int, newest: int) -> Plan[VersionGone]:
    """Find out from which version on a thread can be read, and say so."""
    (found,) = yield [("XRANGE", keys.checkpoints(tenant, thread_id), "-", "+")]
    kept = map(Checkpoint.parse, found)
    oldest = next((one.version for one in kept if one.version == 1 or one.full is not None), None)
    return VersionGone(thread_id, at, oldest, newest)


def reading_state(keys: PartitionKeys, tenant: str, thread_id: str, at: Checkpoint | None) -> Plan[RawState]:
    """Rebuild the state as of a checkpoint.

    Raises:
        VersionGone: what it is built on was trimmed.
    """
    entries: list[Checkpoint] = []
    below = at.version if at else 0
    while below > 0 and not (entries and entries[-1].full is not None):
        (found,) = yield [
            ("XREVRANGE", keys.checkpoints(tenant, thread_id), f"{below}-0", "-", "COUNT", STRIDE),
        ]
        strip = [Checkpoint.parse(entry) for entry in found]
        if at is not None and (not strip or strip[0].version != below):
            raise (yield from _gone(keys, tenant, thread_id, at.version, at.version))
        below = _walk(strip, entries)
    state, _, _ = fold({}, entries[::-1])
    return state


def _walk(strip: Sequence[Checkpoint], entries: list[Checkpoint]) -> int:
    """Gather a strip of versions, the newest first; gives the version to go on with, 0 if there is no need."""
    for entry in strip:
        if entry.back_to is not None:  # "state of k"
            return entry.back_to
        entries.append(entry)
        if entry.full is not None:
            return 0
    return strip[-1].version - 1


def reading_messages(
    keys: PartitionKeys, tenant: str, thread_id: str, at: int | None, after: int | None, limit: int
) -> Plan[MessagePage]:
    """Read a page of what a version shows (None: the newest), behind the cursor of the page before.

    Raises:
        ThreadNotFound, VersionGone, ValueError.
    """
    if limit < 1 or (after or 0) < 0:
        raise ValueError(f"limit={limit}, after={after} is refused: a limit is 1 or more, a cursor a page's")
    entry = yield from reading_version(keys, tenant, thread_id, at)
    if entry is None:
        return MessagePage([], None)
    begin, wanted, reads = after or 0, limit, list[tuple[str, str, int, int]]()
    for start, end in ranges(entry.spans, entry.messages):
        skipped = min(begin, end - start)
        begin -= skipped
        count = min(wanted, end - start - skipped)
        if count > 0:
            wanted -= count
            first = start + skipped
            reads.append(("LRANGE", keys.messages(tenant, thread_id), first, first + count - 1))
    texts = yield reads
    messages = [decode_json(text) for part in texts for text in part]
    behind = (after or 0) + len(messages)
    return MessagePage(messages, behind if messages and behind < shown(entry.spans, entry.messages) else None)


def as_values(state: RawState) -> dict[str, Any]:
    """Give a state as plain values."""
    return {key: decode_json(text) for key, text in state.items()}


def as_text(state: RawState) -> str:
    """Give a state as a checkpoint writes it in full."""
    return write_full(state)
