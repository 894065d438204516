"""How a place in a document is written: a tuple in code, ``$.user.items[0]`` in text."""

import re
from collections.abc import Sequence

Path = tuple[str | int, ...]
"""Object keys (str) and array indexes (int, from 0); () is the whole document."""

MAX_DEPTH = 128
"""A document is at most this deep: more is a mistake, or somebody's try at our stack."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def show(path: Sequence[str | int]) -> str:
    """Print a path: ``$.user.items[0]``; keys that are no plain words come as ``$["a.b"]``."""
    parts = ["$"]
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif _PLAIN.fullmatch(part):
            parts.append(f".{part}")
        else:
            text = part.replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'["{text}"]')
    return "".join(parts)
