"""One checkpoint as bytes, and a chain of them as checkpoints again.

state, metadata ──▶ "F:<id> <size>" whole · "D12:<id> <size>" changes, on those from the whole one numbered 12
                  + body: sealed (length of what is told · what is told · texts)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from techrevati.runtime.checkpoint import Checkpoint
from techrevati.store.errors import PayloadTooLarge
from techrevati.store.saver import json_text
from techrevati.store.saver.delta import Delta, Texts, apply, apply_all
from techrevati.store.sealing import SealBroken, Sealer


class Body(msgspec.Struct, array_like=True, frozen=True):
    """What is told of a checkpoint: how long each of the texts behind it is if it is a whole one, or `delta`."""

    id: str
    created_at: str
    parent_id: str | None
    metadata: bytes
    sizes: dict[str, int] | None
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
    size: int = 0
    """Bytes of texts and metadata."""

    def __post_init__(self) -> None:
        self.size = sum(map(len, self.texts.values()), len(self.metadata))

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


def pack(view: View, delta: Delta | None, limit: int) -> list[bytes]:
    """Give a checkpoint before it is sealed, in pieces: texts are long, and not copied here.

    Raises:
        PayloadTooLarge: it is over `limit` bytes.
    """
    sizes = None if delta is not None else {key: len(text) for key, text in view.texts.items()}
    told = _encode(Body(view.id, view.created_at, view.parent_id, view.metadata, sizes, delta))
    if len(told) > limit or (sizes is not None and view.size > limit):
        raise PayloadTooLarge("checkpoint", max(len(told), view.size), limit)
    pieces = [len(told).to_bytes(4, "big") + told]
    if sizes is not None:
        pieces += view.texts.values()
    return pieces


def unpack(plain: bytes) -> tuple[Body, Texts]:
    """Read what was packed.

    Raises:
        SealBroken: it is not what was packed.
    """
    end = 4 + int.from_bytes(plain[:4], "big")
    try:
        body = _decode(memoryview(plain)[4:end])
    except msgspec.DecodeError as error:
        raise SealBroken(str(error)) from error
    texts = Texts()
    for key, size in (body.sizes or {}).items():
        texts[key] = plain[end : end + size]
        end += size
    if end != len(plain):
        raise SealBroken(f"{len(plain):,} bytes where {end:,} were written")
    return body, texts


def head(id: str, base: int | None, size: int) -> str:
    """Give a record without its body of `size` bytes; `base` is None for a whole one."""
    return f"F:{id} {size}" if base is None else f"D{base}:{id} {size}"


def id_of(record: bytes) -> str:
    """Say whose record it is."""
    return record.partition(b" ")[0].partition(b":")[2].decode()


@dataclass(frozen=True, slots=True)
class Record:
    """A record and its body, as they are stored; None where there is none."""

    head: bytes | None
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A record that was read, and the number it builds on."""

    body: Body
    texts: Texts
    base: int | None


def read(record: Record, sealer: Sealer, context: str) -> Opened:
    """Read a record.

    Raises:
        SealBroken, UnknownKey, WrongKey.
    """
    if not record.head or not record.body:
        raise SealBroken("a checkpoint of the chain is missing")
    base = int(record.head[1:].partition(b":")[0]) if record.head[:1] == b"D" else None
    return Opened(*unpack(sealer.open(record.body, context)), base)


def _view(number: int, body: Body, texts: Texts, base: int, changes: int) -> View:
    return View(body.id, number, body.created_at, body.parent_id, body.metadata, texts, base, changes)


def fold(number: int, records: Sequence[Record], sealer: Sealer, context: str) -> list[View]:
    """Give all checkpoints of a chain, oldest first; the last is numbered `number`."""
    views, texts, base, changes = list[View](), Texts(), 0, 0
    for place, record in enumerate(records, number - len(records) + 1):
        one = read(record, sealer, context)
        if one.body.sizes is not None:
            texts, base, changes = one.texts, place, 0
        elif one.body.delta is not None and one.base is not None:
            texts, base, changes = apply(texts, one.body.delta), one.base, changes + one.body.delta.size
        views.append(_view(place, one.body, texts, base, changes))
    return views


def last_of(number: int, records: Sequence[Record], sealer: Sealer, context: str) -> View:
    """Give the checkpoint that a chain makes; like `fold`, without those before it."""
    first, *others = [read(record, sealer, context) for record in records]
    if first.body.sizes is None:
        raise SealBroken("a chain does not begin with a whole checkpoint")
    last, deltas = (others or [first])[-1], [one.body.delta for one in others if one.body.delta is not None]
    changes = sum(delta.size for delta in deltas)
    return _view(number, last.body, apply_all(first.texts, deltas), last.base or number, changes)


@dataclass(slots=True)
class Written:
    """A state as JSON text by top-level key, with a copy of it."""

    texts: Texts
    copy: dict[str, object]


def texts_of(state: Mapping[str, object]) -> Written:
    """Write a state.

    Raises:
        TypeError, ValueError: it is not JSON data.
    """
    if not set(map(type, state)) <= {str}:
        state = json_text.encode(dict(state))[1]
    texts: Texts = {}
    copy: dict[str, object] = {}
    for key, value in state.items():
        texts[key], copy[key] = json_text.encode(value)
    return Written(texts, copy)
