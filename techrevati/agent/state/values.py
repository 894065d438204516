"""JSON values: checked and copied on their way in, compared as they are stored."""

import math
from typing import Any

import msgspec

from techrevati.agent.state.errors import BadValue
from techrevati.agent.state.notation import MAX_DEPTH, Path

Json = Any
"""dict with str keys, list, str, int of 64 bits, finite float, bool or None."""

_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_encode = msgspec.json.Encoder(order="deterministic").encode


def checked(value: Json, path: Path = ()) -> Json:
    """Copy a JSON value, so that nobody changes it afterwards.

    Raises:
        BadValue: naming the place within, below `path`.
    """
    kind = type(value)
    if len(path) > MAX_DEPTH:
        raise BadValue(path[:3], f"it is deeper than {MAX_DEPTH}, or contains itself")
    if kind is str or kind is bool or value is None:
        return value
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise BadValue(path, f"key {key!r} is no str")
        return {key: checked(item, (*path, key)) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [checked(item, (*path, index)) for index, item in enumerate(value)]
    if kind is int:
        if not _LEAST <= value <= _MOST:
            raise BadValue(path, f"{value} has more than 64 bits")
        return value
    if kind is float:
        if not math.isfinite(value):
            raise BadValue(path, f"{value} is no JSON number")
        return value
    if isinstance(value, str):  # StrEnum and the like: stored as what they are
        return str.__str__(value)
    if isinstance(value, int):
        return checked(int.__int__(value), path)
    if isinstance(value, float):
        return checked(float.__float__(value), path)
    if isinstance(value, dict):
        return checked(dict(value), path)
    if isinstance(value, list | tuple):
        return checked(list(value), path)
    raise BadValue(path, f"a {kind.__name__}")


def plain(value: Any) -> Json:
    """Give the JSON of a value made of records, tuples and the like.

    Raises:
        BadValue, TypeError: it has none.
    """
    return checked(msgspec.to_builtins(value, str_keys=True))


def canonical(value: Json) -> bytes:
    """Give the one text of a value: JSON with sorted keys."""
    return _encode(value)


def same(one: Json, other: Json) -> bool:
    """Say whether two values are stored alike: ``1``, ``1.0`` and ``true`` all differ."""
    if one is other:
        return True
    return bool(one == other) and canonical(one) == canonical(other)


def kind_of(value: Json) -> str:
    """Name the kind of a value, for an error."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"
