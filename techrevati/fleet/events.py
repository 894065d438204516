"""Reading a run's events: durable ones in order without gaps, deltas where they belong, resumable.

cursor "17.0~ab12cd34" ──▶ read both streams ──▶ events after it, or `stream_reset` and a snapshot
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from techrevati.runtime.errors import TechrevatiError
from techrevati.store.calls import Arg
from techrevati.store.keys import PartitionKeys
from techrevati.store.records import Event, RunRecord, Status, pairs

PAGE = 500
TERMINAL = frozenset(f"run.{status}" for status in Status if status.is_terminal)


class BadCursor(TechrevatiError):
    """`after` is not an event's id."""

    def __init__(self, cursor: str) -> None:
        super().__init__(cursor)
        self.cursor = cursor

    def __str__(self) -> str:
        return f"cursor {self.cursor!r} is refused: pass the id of an event you have seen"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a run's stream: behind durable event `seq` and delta `n`; `by` is who wrote event `seq`."""

    seq: int = 0
    n: int = 0
    by: str = ""

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        if not text:
            return cls()
        place, _, by = text.partition("~")
        seq, _, n = place.partition(".")
        if not seq.isdigit() or not (n or "0").isdigit():
            raise BadCursor(text)
        return cls(int(seq), int(n or 0), by)


def reading(keys: PartitionKeys, run_id: str, cursor: Cursor) -> list[tuple[Arg, ...]]:
    """Build the reads for what follows a cursor; the durable event at the cursor is read again as proof."""
    return [
        ("XRANGE", keys.events(run_id), f"{max(1, cursor.seq)}-0", "+", "COUNT", PAGE),
        ("XRANGE", keys.live(run_id), f"({cursor.seq}-{cursor.n}", "+", "COUNT", PAGE),
        ("HGETALL", keys.run(run_id)),
    ]


@dataclass(frozen=True, slots=True)
class Page:
    """Events after a cursor, where to go on, and whether that was all there will ever be."""

    events: list[Event]
    cursor: Cursor
    ended: bool
    known: bool


def page(run_id: str, cursor: Cursor, replies: Sequence[Any]) -> Page:
    """Read the answers to `reading`."""
    durable = [Event.parse(run_id, entry) for entry in replies[0]]
    live = [Event.parse(run_id, entry) for entry in replies[1]]
    fields: dict[str, str] = replies[2] if isinstance(replies[2], dict) else pairs(replies[2])
    if not fields or "gone" in fields:  # the tombstone of a deleted one is no run either
        return Page([], cursor, ended=True, known=False)
    record = RunRecord.parse(run_id, fields)
    last = record.seq
    if cursor.seq:
        at = durable[0] if durable and durable[0].seq == cursor.seq else None
        proof = at is not None and (cursor.n > 0 or not cursor.by or at.id == f"{cursor.seq}.0~{cursor.by}")
        if not proof:
            return _reset(record, durable)
        durable = durable[1:]
    elif durable and durable[0].seq != 1:
        return _reset(record, durable)
    if len(durable) >= PAGE - 1 and durable:  # deltas behind what was not read yet wait for the next page
        live = [event for event in live if event.seq < durable[-1].seq]
    merged = sorted([*durable, *live], key=lambda event: (event.seq, event.n))
    ended = record.status.is_terminal and (not merged or merged[-1].seq >= last) and not _more(merged, last, cursor)
    after = cursor
    if merged:
        newest = merged[-1]
        after = Cursor(newest.seq, newest.n, newest.id.partition("~")[2])
    return Page(merged, after, ended, known=True)


def _more(merged: Sequence[Event], last: int, cursor: Cursor) -> bool:
    return max((event.seq for event in merged), default=cursor.seq) < last


def _reset(record: RunRecord, durable: Sequence[Event]) -> Page:
    """The cursor is trimmed, expired or off the chain: say so, with what stands now, and go on from here."""
    newest = durable[-1] if durable else None
    seq, by = (newest.seq, newest.id.partition("~")[2]) if newest else (record.seq, "")
    snapshot = {
        "status": record.status.value,
        "role": record.role,
        "turn": record.turn,
        "output": record.output,
        "error": record.error,
        "seq": record.seq,
    }
    event = Event(f"{seq}.0~{by}", seq, 0, "stream_reset", 0.0, record.run_id, {"snapshot": snapshot})
    return Page([event], Cursor(seq, 0, by), record.status.is_terminal and seq >= record.seq, known=True)
