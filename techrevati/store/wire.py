"""What both clients share: bytes on the wire, and what a Redis error means to us."""

import re
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import hiredis
from redis import exceptions as theirs

from techrevati.runtime.errors import TechrevatiError
from techrevati.store.calls import Arg, Call
from techrevati.store.errors import ScriptFault, StoreDenied, StoreUnfit, StoreUnreachable
from techrevati.store.keys import PartitionKeys
from techrevati.store.scripts import PROTOCOL, script
from techrevati.store.sentinel import is_sentinel, parse

Ring = Callable[[int, list[str]], None]
"""Called with a partition and the roles that want a ticket sent by hand (broker is not the store)."""

_pack = cast(Callable[[tuple[Arg | float, ...]], bytes], hiredis.pack_command)

RETRIABLE = (theirs.ConnectionError, theirs.TimeoutError, theirs.BusyLoadingError, theirs.ReadOnlyError)

_PASSING = re.compile(r"(?:^|[ :]-)(?:READONLY|MASTERDOWN|NOREPLICAS|UNBLOCKED) ")
"""Codes of a server that is no master now, or has no replicas yet; Redis 6.2 quotes them inside a script's error."""


def moved(error: theirs.ResponseError) -> bool:
    """Tell whether this server cannot take the write, and the one that can has to be looked for."""
    return isinstance(error, theirs.ReadOnlyError) or _PASSING.search(str(error)) is not None


_MULTI, _EXEC = _pack(("MULTI",)), _pack(("EXEC",))


def pack(call: Call[Any], now: str, *, whole: bool = False) -> bytes:
    """Give one script call as bytes: by digest, or with its source for a server that does not know it."""
    return b"".join(in_pieces(call, now, whole=whole)) if call.first else _scripted(call, now, whole)


def in_pieces(call: Call[Any], now: str, *, whole: bool = False) -> Sequence[bytes]:
    """Give the same in pieces, so that what is big is not copied."""
    packed = _scripted(call, now, whole)
    if not call.first:
        return (packed,)
    # Packed with nothing in its last place, a command ends in "$0\r\n\r\n".
    first, size = _pack((*call.first, b"")), sum(map(len, call.pieces))
    return (b"%b%b%d\r\n" % (_MULTI, first[:-5], size), *call.pieces, b"\r\n%b%b" % (packed, _EXEC))


def _scripted(call: Call[Any], now: str, whole: bool) -> bytes:
    lua = script(call.script)
    verb, what = ("EVAL", lua.source) if whole else ("EVALSHA", lua.sha)
    return _pack((verb, what, "1", call.keys.clock, PROTOCOL, now, *call.args))


def pack_command(args: Sequence[Arg | float]) -> bytes:
    return _pack(tuple(args))


def replies_to(call: Call[Any]) -> Sequence[bool]:
    """Say which replies come to a call: True for those that are bytes as stored."""
    return (False, False, False, call.binary) if call.first else (call.binary,)


def answer_of(call: Call[Any], replies: Sequence[Any]) -> Any:
    """Give the script's answer, or the error that stands in its place."""
    done = replies[-1]
    if not call.first:
        return done
    if type(done) is list and type(done[0]) is int and type(done[1]) is list:
        return done[1]  # what EXEC answered: of the command, and of the script
    refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
    if refused is not None:
        return refused
    return next((reply for reply in done if isinstance(reply, Exception)), done[-1])


_PASSWORD = re.compile(r"([?&]password=)[^&#]*")


def safe_url(url: str) -> str:
    """Give a URL that may be shown: without its password."""
    if is_sentinel(url):
        return parse(url).shown()
    url = _PASSWORD.sub(r"\1***", url)
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))


def translate(error: Exception, url: str, what: str = "command") -> TechrevatiError:
    """Say a redis-py error in this project's words."""
    shown = safe_url(url)
    if isinstance(error, theirs.AuthenticationError | theirs.AuthorizationError | theirs.NoPermissionError):
        return StoreDenied(shown, str(error))
    if "unauthenticated" in str(error):  # who has not said a password may not even send a long command
        return StoreDenied(shown, "authentication required")
    if isinstance(error, theirs.OutOfMemoryError):
        return StoreUnfit(f"Redis at {shown} is out of memory", "raise maxmemory or shorten the retention")
    if isinstance(error, (*RETRIABLE, OSError)):
        return StoreUnreachable(shown, str(error) or type(error).__name__)
    return ScriptFault(what, str(error))


def rung(call: Call[Any], reply: Any, ring: Ring | None) -> None:
    """Hand on the wish for tickets that a script could not send itself."""
    if ring is not None and reply[1] and isinstance(call.keys, PartitionKeys):
        ring(call.keys.partition, list(reply[1]))
