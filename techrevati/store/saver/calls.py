"""What is said to Redis about checkpoints, as values; see ``lua/saver_*.lua``.  Replies are bytes.

A small body is an argument of its script.  A larger one does not pass through Lua, which would copy it twice: it is
written by a plain command in front of the script, in one transaction, and read by another behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from techrevati.runtime.checkpoint import StaleClaimError
from techrevati.store.calls import Arg, Call
from techrevati.store.errors import ScriptFault, UpgradeRequired
from techrevati.store.saver.names import SaverKeys
from techrevati.store.saver.record import Record, id_of
from techrevati.store.scripts import PROTOCOL
from techrevati.store.talk import Command

SMALL = 4 * 1024
"""Bytes up to which two copies in Lua cost less than a transaction does."""


class NotTheLast(Exception):
    """The checkpoint that a delta builds on is not the last one any more: put a whole one."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A checkpoint's number and the records it is made of, oldest first; none if the caller has it.

    Of a page: `number` is the first one that is wanted, and `sent` the first of the records.
    """

    number: int
    records: tuple[Record, ...]
    sent: int = 0

    def missing(self, keys: SaverKeys) -> Command | None:
        """Give what reads the bodies that were not sent; None if they were."""
        if all(record.body for record in self.records):
            return None
        names = [f"b{id_of(record.head or b'')}" for record in self.records]
        return Command(("HMGET", keys.clock, *names), binary=True)

    def with_bodies(self, bodies: Sequence[bytes | None]) -> "Chain":
        records = (Record(record.head, body) for record, body in zip(self.records, bodies, strict=True))
        return Chain(self.number, tuple(records), self.sent)


def _records(told: Sequence[Any], many: int) -> tuple[Record, ...]:
    """Read `many` records, and their bodies if these were told."""
    bodies = told[many:] or [None] * many
    return tuple(map(Record, told[:many], bodies))


def _refuse(script: str, reply: Sequence[Any]) -> NoReturn:
    if reply[0] == -10:
        raise UpgradeRequired(PROTOCOL, int(reply[2]))
    raise ScriptFault(script, repr(reply))


def put(
    keys: SaverKeys,
    *,
    id: str,
    after: str,
    record: str,
    body: Sequence[bytes],
    key: str = "",
    token: int | None = None,
    ttl_ms: int = 0,
    keep: int = 0,
) -> Call[int]:
    """Append a checkpoint; gives its number."""

    def parse(reply: Sequence[Any]) -> int:
        if reply[0] == -30:
            raise NotTheLast
        if reply[0] == -31:
            raise StaleClaimError(keys.thread, key, token or 0, int(reply[2]))
        if reply[0] < 0:
            _refuse("saver_put", reply)
        return int(reply[2])

    args: tuple[Arg, ...] = (id, after, record, key, "" if token is None else token, ttl_ms, keep)
    if sum(map(len, body)) <= SMALL:
        return Call("saver_put", keys, (*args, b"".join(body)), parse, binary=True)
    first = ("HSET", keys.clock, f"b{id}")
    return Call("saver_put", keys, (*args, ""), parse, binary=True, first=first, pieces=body)


def squeeze(keys: SaverKeys, id: str, body: bytes) -> Call[bool]:
    """Put a smaller body in the place of one; False if the checkpoint is gone."""
    return Call("saver_squeeze", keys, (id, body), lambda reply: _changed("saver_squeeze", reply))


def get(keys: SaverKeys, by: str = "last", value: str = "", have: str = "") -> Call[Chain | None]:
    """Read the last checkpoint, or one by "id" or "key"; `have` need not be sent."""

    def parse(reply: Sequence[Any]) -> Chain | None:
        if reply[0] < 0:
            _refuse("saver_get", reply)
        if reply[0] == 2:
            return Chain(int(reply[2]), ())
        return Chain(int(reply[2]), _records(reply[4:], int(reply[3]))) if reply[0] else None

    return Call("saver_get", keys, (by, value, have), parse, binary=True)


def page(keys: SaverKeys, before: str, limit: int) -> Call[Chain | None]:
    """Read at most `limit` checkpoints put before one, or the last ones."""

    def parse(reply: Sequence[Any]) -> Chain | None:
        if reply[0] < 0:
            _refuse("saver_list", reply)
        return Chain(int(reply[2]), _records(reply[5:], int(reply[3])), int(reply[4])) if reply[0] else None

    return Call("saver_list", keys, (before, limit), parse, binary=True)


def claim(keys: SaverKeys, key: str, owner: str, lease_us: int, ttl_ms: int) -> Call[int | float | Chain]:
    """Reserve a key; gives a token, the seconds it is held by another, or the result."""

    def parse(reply: Sequence[Any]) -> int | float | Chain:
        if reply[0] < 0:
            _refuse("saver_claim", reply)
        if reply[0] == 1:
            return int(reply[2])
        if reply[0] == 2:
            return int(reply[2]) / 1e6
        return Chain(int(reply[2]), _records(reply[4:], int(reply[3])))

    return Call("saver_claim", keys, (key, owner, lease_us, ttl_ms), parse, binary=True)


def _changed(script: str, reply: Sequence[Any]) -> bool:
    if reply[0] < 0:
        _refuse(script, reply)
    return bool(reply[0] == 1)


def release(keys: SaverKeys, key: str, token: int) -> Call[bool]:
    return Call("saver_release", keys, (key, token), lambda reply: _changed("saver_release", reply))


def delete(keys: SaverKeys, ttl_ms: int) -> Call[bool]:
    return Call("saver_delete", keys, (ttl_ms,), lambda reply: _changed("saver_delete", reply))
