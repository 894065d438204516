"""JSON in and out, exact and fast: what is read is what ``json.dumps`` would have written.

value ──copy, compare──▶ equal: encoded by msgspec · not equal: by `json`, which refuses or converts
"""

import json
import threading
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_pack_into = msgspec.msgpack.Encoder().encode_into
_decode = msgspec.json.Decoder().decode

_ATOMS = frozenset({str, int, bool, type(None)})
_FLOAT, _ALL_ONES = 0xCB, (b"\x7f", b"\xff")  # what stands before a float in msgpack, and then in one not finite
_LOOKS = 64
_KEPT = 1024 * 1024


class _Scratch(threading.local):
    """Bytes that nobody needs afterwards; kept, for new memory of that size costs as much as filling it."""

    def __init__(self) -> None:
        self.bytes = bytearray()


_scratch = _Scratch()


def copy_of(value: Any) -> Any:
    """Give a deep copy of JSON data."""
    try:
        return msgspec.to_builtins(value)
    except (TypeError, UnicodeEncodeError, RecursionError):
        return decode(json.dumps(value).encode())


def encode(value: Any) -> tuple[bytes, Any]:
    """Give a value as JSON text, and a copy of it.

    Raises:
        TypeError, ValueError: it is not JSON data, as ``json.dumps`` says.
    """
    try:
        if type(value) in _ATOMS:
            return _encode(value), value
        # msgspec has words for much that JSON has none for (sets, dates, bytes); these do not equal their words.
        copy = msgspec.to_builtins(value, str_keys=True)
        if copy == value:
            text = _encode(value)
            # It writes NaN and infinity as null, `json` by their names.
            if _is_finite(copy) or b"null" not in text or _decode(text) == copy:
                return text, copy
    except (TypeError, ValueError, RecursionError):
        pass
    text = json.dumps(value).encode()
    return text, json.loads(text)


def _is_finite(value: Any) -> bool:
    """Say if there is surely no NaN and no infinity in it.

    To look for "null" in its text would take longer than to write it: a float in msgpack has a byte in front that
    is rare elsewhere, and if it is not finite the exponent behind is all ones.
    """
    packed = _scratch.bytes
    try:
        _pack_into(value, packed)
    except OverflowError:  # an integer that has no place in msgpack
        return False
    if len(packed) > _KEPT:
        _scratch.bytes = bytearray()
    at = packed.find(_FLOAT)
    for _ in range(_LOOKS):
        if at < 0:
            return True
        if packed[at + 1 : at + 2] in _ALL_ONES and packed[at + 2 : at + 3] >= b"\xf0":
            return False
        at = packed.find(_FLOAT, at + 1)
    return False


def decode(text: bytes) -> Any:
    try:
        return _decode(text)
    except msgspec.DecodeError:  # a NaN, or half a surrogate pair
        return json.loads(text)
