"""JSON in and out, exact and fast: what is read is what ``json.dumps`` would have written.

value ──copy, compare──▶ equal: encoded by msgspec · not equal: by `json`, which refuses or converts
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def copy_of(value: Any) -> Any:
    """Give a deep copy of JSON data."""
    try:
        return msgspec.to_builtins(value)
    except (TypeError, UnicodeEncodeError, RecursionError):
        return decode(json.dumps(value).encode())


def _contains_null(text: bytes) -> bool:
    return b"null" in text


def encode(value: Any, has_null: Callable[[bytes], bool] = _contains_null) -> tuple[bytes, Any]:
    """Give a value as JSON text, and a copy of it.  Who knows most of the text may know sooner if it `has_null`.

    Raises:
        TypeError, ValueError: it is not JSON data, as ``json.dumps`` says.
    """
    try:
        # msgspec has words for much that JSON has none for (sets, dates, bytes); these do not equal their words.
        copy = msgspec.to_builtins(value, str_keys=True)
        if copy == value:
            text = _encode(value)
            # It writes NaN and infinity as null, `json` by their names.
            if not has_null(text) or _decode(text) == copy:
                return text, copy
    except (TypeError, ValueError, RecursionError):
        pass
    text = json.dumps(value).encode()
    return text, json.loads(text)


def decode(text: bytes) -> Any:
    try:
        return _decode(text)
    except msgspec.DecodeError:  # a NaN, or half a surrogate pair
        return json.loads(text)
