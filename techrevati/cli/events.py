"""Read events that other processes wrote, without trusting their shape."""

from collections.abc import Mapping
from typing import Any

EventDict = Mapping[str, Any]

_TOO_LARGE = 1e18


class EventData:
    """Named fields of unknown types: what is missing or malformed reads as empty or zero."""

    def __init__(self, fields: object) -> None:
        self._fields: Mapping[str, Any] = fields if isinstance(fields, Mapping) else {}

    def text(self, name: str) -> str:
        return text_of(self._fields.get(name))

    def number(self, name: str) -> float:
        value = self._fields.get(name)
        finite = isinstance(value, int | float) and abs(value) < _TOO_LARGE  # drops nan as well
        return float(value) if finite and value is not None else 0.0

    def whole(self, name: str) -> int:
        return int(self.number(name))


def text_of(value: object) -> str:
    """Give a value as one readable text; an error record is its type and message."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        parts = [value.get(name) for name in ("type", "message")]
        return ": ".join(str(part) for part in parts if part) or str(dict(value))
    return str(value)
