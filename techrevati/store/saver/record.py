"""One checkpoint as bytes, and a chain of them as checkpoints again.

state, metadata ──▶ "F:<id> sealed" whole · "D12:<id> sealed" changes, on those from the whole one numbered 12
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from techrevati.runtime.checkpoint import Checkpoint
from techrevati.store.errors import PayloadTooLarge
from techrevati.store.saver import json_text
from techrevati.store.saver.delta import Delta, Splice, Texts, apply, apply_all, splice_of
from techrevati.store.sealing import SealBroken, Sealer


class Body(msgspec.Struct, array_like=True, frozen=True):
    """What is sealed: `texts` of a whole one, or `delta`."""

    id: str
    created_at: str
    parent_id: str | None
    metadata: bytes
    texts: dict[str, bytes] | None
    delta: Delta | None


@dataclass(slots=True)
class View:
    """A checkpoint as texts, and where it stands in its chain."""

    id: str
    number: int
    created_at: str
    parent_id: str | None
    metadata: bytes
    texts: Texts
    base: int
    """Number of the whole one it builds on; its own if it is whole."""
    changes: int
    """Bytes of the deltas since."""
    state: dict[str, Any] | None = None
    """Decoded, once it was asked for; never handed out."""
    clear: set[str] | None = None
    """Keys whose text does not contain "null", once that was asked for."""

    @property
    def size(self) -> int:
        return sum(map(len, self.texts.values())) + len(self.metadata)

    def keys_without_null(self) -> set[str]:
        if self.clear is None:
            self.clear = {key for key, text in self.texts.items() if b"null" not in text}
        return self.clear

    def checkpoint(self, thread: str) -> Checkpoint:
        """Give the record."""
        state = {key: json_text.decode(text) for key, text in self.texts.items()}
        return self._made(thread, state)

    def checkpoint_again(self, thread: str) -> Checkpoint:
        """Give the record of a view that is kept: copied, which costs less than decoding."""
        if self.state is None:
            self.state = {key: json_text.decode(text) for key, text in self.texts.items()}
        return self._made(thread, json_text.copy_of(self.state))

    def _made(self, thread: str, state: dict[str, Any]) -> Checkpoint:
        metadata = json_text.decode(self.metadata)
        return Checkpoint(self.id, thread, self.created_at, state, self.parent_id, metadata)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Body).decode


def write(body: Body, base: int | None, sealer: Sealer, context: str, limit: int) -> bytes:
    """Give a record as it is stored; `base` is None for a whole one.

    Raises:
        PayloadTooLarge: it is over `limit` bytes before compression.
    """
    plain = _encode(body)
    if len(plain) > limit:
        raise PayloadTooLarge("checkpoint", len(plain), limit)
    head = f"F:{body.id} " if base is None else f"D{base}:{body.id} "
    return head.encode() + sealer.seal(plain, context)


def read(record: bytes | None, sealer: Sealer, context: str) -> tuple[Body, int | None]:
    """Give what a record says, and the number it builds on.

    Raises:
        SealBroken, UnknownKey, WrongKey.
    """
    if not record:
        raise SealBroken("a checkpoint of the chain is missing")
    head, _, sealed = record.partition(b" ")
    base = int(head[1:].partition(b":")[0]) if head[:1] == b"D" else None
    try:
        return _decode(sealer.open(sealed, context)), base
    except msgspec.DecodeError as error:
        raise SealBroken(str(error)) from error


def fold(number: int, records: Sequence[bytes], sealer: Sealer, context: str) -> list[View]:
    """Give all checkpoints of a chain, oldest first; the last is numbered `number`."""
    views, texts, base, changes = list[View](), Texts(), 0, 0
    for place, record in enumerate(records, number - len(records) + 1):
        body, on = read(record, sealer, context)
        if body.texts is not None:
            texts, base, changes = body.texts, place, 0
        elif body.delta is not None and on is not None:
            texts, base, changes = apply(texts, body.delta), on, changes + body.delta.size
        views.append(View(body.id, place, body.created_at, body.parent_id, body.metadata, texts, base, changes))
    return views


def last_of(number: int, records: Sequence[bytes], sealer: Sealer, context: str) -> View:
    """Give the checkpoint that a chain makes; like `fold`, without those before it."""
    bodies = [read(record, sealer, context) for record in records]
    (first, _), (body, on) = bodies[0], bodies[-1]
    if first.texts is None:
        raise SealBroken("a chain does not begin with a whole checkpoint")
    deltas = [between.delta for between, _ in bodies[1:] if between.delta is not None]
    texts = apply_all(first.texts, deltas)
    changes = sum(delta.size for delta in deltas)
    return View(body.id, number, body.created_at, body.parent_id, body.metadata, texts, on or number, changes)


@dataclass(slots=True)
class Written:
    """A state as JSON text by top-level key, with a copy of it, and what was found out on the way."""

    texts: Texts
    copy: dict[str, object]
    clear: set[str]
    splices: dict[str, Splice | None]


def texts_of(state: Mapping[str, object], before: View | None = None) -> Written:
    """Write a state; `before` is the one it probably shares most with.

    Raises:
        TypeError, ValueError: it is not JSON data.
    """
    if not set(map(type, state)) <= {str}:
        state = json_text.encode(dict(state))[1]
    made, known = Written({}, {}, set(), {}), before.keys_without_null() if before is not None else ()
    for key, value in state.items():
        old = before.texts[key] if before is not None and key in known else None
        made.texts[key], made.copy[key] = json_text.encode(value, partial(_has_null, made, key, old))
    return made


def _has_null(made: Written, key: str, old: bytes | None, text: bytes) -> bool:
    """Say if a text contains "null"; where the old one has none, what is new is looked at, and three bytes around."""
    part = text
    if old == text:
        part = b""
    elif old is not None:
        splice = made.splices[key] = splice_of(old, text)
        if splice is not None:
            part = text[max(0, splice.front - 3) : len(text) - splice.back + 3]
    if b"null" in part:
        return True
    made.clear.add(key)
    return False
