"""Ids that sort by the time they were made (UUIDv7), and ids that are refused."""

import re
import secrets
import time
from collections.abc import Callable
from uuid import UUID

from techrevati.agent.threads.errors import InvalidId

NewId = Callable[[], str]
Clock = Callable[[], int]
"""Unix milliseconds."""

MAX_LENGTH = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def unix_ms() -> int:
    return time.time_ns() // 1_000_000


def uuid7(now_ms: int, random: int) -> str:
    """Give the UUIDv7 of a time and 74 random bits.

    Source: RFC 9562, §5.7.
    """
    value = (now_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (random >> 62 & 0xFFF) << 64 | 0b10 << 62
    return str(UUID(int=value | random & (1 << 62) - 1))


def new_id() -> str:
    """Give an id that nobody else has, sorted by its time."""
    return uuid7(unix_ms(), secrets.randbits(74))


def checked_id(text: str, what: str = "thread id") -> str:
    """Give an id that is safe as a key and as a file's name.

    Raises:
        InvalidId: it is empty, too long, could leave its folder, or has control characters.
    """
    if not isinstance(text, str) or not text:
        raise InvalidId(what, text, "at least one character")
    if len(text) > MAX_LENGTH:
        raise InvalidId(what, text[:32] + "…", f"at most {MAX_LENGTH} characters")
    if "/" in text or "\\" in text or ".." in text or text == ".":
        raise InvalidId(what, text, "no slash, backslash or two dots")
    if _CONTROL.search(text):
        raise InvalidId(what, text, "no control characters")
    return text
