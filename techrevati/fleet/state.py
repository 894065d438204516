"""The durable state of a thread, as a turn sees it.

    raw JSON per key ──read──▶ decoded ──changed?──▶ delta {"s": {key: JSON}, "d": [keys gone]}

Only keys that a turn touched are decoded, and only those are encoded again, so a turn's cost does not
grow with what it leaves alone.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import msgspec

from techrevati.fleet.codec import encode

RawState = dict[str, str]
"""Key -> JSON text."""

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Delta(msgspec.Struct):
    s: dict[str, msgspec.Raw] = {}
    d: list[str] = []


_delta = msgspec.json.Decoder(_Delta)
_value = msgspec.json.Decoder().decode
_key = msgspec.json.Encoder().encode


def parse_full(text: str) -> RawState:
    """Read a full state."""
    return {key: str(bytes(raw), "utf-8") for key, raw in _object.decode(text).items()}


def apply_delta(state: Mapping[str, str], text: str) -> RawState:
    """Read a delta onto the state before it."""
    delta = _delta.decode(text)
    after = {**state, **{key: str(bytes(raw), "utf-8") for key, raw in delta.s.items()}}
    for key in delta.d:
        after.pop(key, None)
    return after


def write_full(state: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{_key(key).decode()}:{text}" for key, text in state.items()) + "}"


def write_delta(changed: Mapping[str, str], gone: list[str]) -> str:
    parts = []
    if changed:
        parts.append('"s":' + write_full(changed))
    if gone:
        parts.append('"d":' + encode(gone, "keys", 1 << 30))
    return "{" + ",".join(parts) + "}"


class State(MutableMapping[str, Any]):
    """A thread's state: JSON values by key, kept when the turn commits.

    Change values in place or assign them; ``dict(turn.state)`` gives a plain copy.
    """

    __slots__ = ("_gone", "_limit", "_live", "_raw")

    def __init__(self, raw: Mapping[str, str], limit: int) -> None:
        self._raw, self._limit = raw, limit
        self._live: dict[str, Any] = {}
        self._gone: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        if key in self._live:
            return self._live[key]
        if key in self._gone or key not in self._raw:
            raise KeyError(key)
        value = self._live[key] = _value(self._raw[key])
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"state key {key!r} is refused: keys are str")
        self._live[key] = value
        self._gone.discard(key)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._live.pop(key, None)
        if key in self._raw:
            self._gone.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self._live or (key in self._raw and key not in self._gone)

    def __iter__(self) -> Iterator[str]:
        yield from (key for key in self._raw if key not in self._gone)
        yield from (key for key in self._live if key not in self._raw)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"State({dict(self)!r})"

    def changes(self) -> tuple[RawState, list[str]]:
        """Give what differs from the state the turn began with: changed keys as JSON, and keys gone.

        Raises:
            NotJson, PayloadTooLarge: naming the key.
        """
        changed: RawState = {}
        for key, value in self._live.items():
            text = encode(value, f"state[{key!r}]", self._limit)
            if self._raw.get(key) != text:
                changed[key] = text
        return changed, sorted(self._gone)
