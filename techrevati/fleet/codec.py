"""JSON in and out: strict about types, so that what a turn reads is what the last one wrote."""

import json
from typing import Any

from techrevati.store.errors import NotJson, PayloadTooLarge

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=True).encode


def encode(value: Any, what: str, limit: int) -> str:
    """Give a value as JSON text of at most `limit` bytes.

    Raises:
        NotJson: it holds something JSON has no word for (a set, a datetime, NaN).
        PayloadTooLarge: it is longer.
    """
    try:
        text = _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJson(what, str(error)) from None
    if len(text) * 4 > limit:
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise NotJson(what, str(error)) from None
        if size > limit:
            raise PayloadTooLarge(what, size, limit)
    return text
