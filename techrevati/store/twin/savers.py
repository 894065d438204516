"""The saver scripts, one function each, on one thread's checkpoints in memory.

    put ──▶ number n, on the one before or whole        claim ──token──▶ put with that token ──▶ claim ends

Bodies are opaque here; a record "F:<id> <size>" is a whole one, "D<base>:<id> <size>" builds on all from `base` on.

Twin: ``lua/_saver.lua`` and ``lua/saver_*.lua``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from techrevati.store.calls import Arg, Call
from techrevati.store.scripts import PROTOCOL
from techrevati.store.twin import clock
from techrevati.store.twin.unit import Refused, Reply

PAGE = 128
TRIMMED = 64
SMALL = 32768


@dataclass(slots=True)
class Line:
    """One thread's checkpoints, from number `first` to `last`."""

    clock: int = 0
    minimum: int | None = None
    last: int = 0
    last_id: str = ""
    first: int = 1
    token: int = 0
    records: dict[int, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    bodies: dict[str, str] = field(default_factory=dict)
    """By id."""
    keyed: dict[str, int] = field(default_factory=dict)
    claims: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    """Key -> token, when it expires, owner."""

    def base(self, number: int) -> int:
        match = re.match(r"D(\d+):", self.records.get(number, ""))
        return int(match[1]) if match else number

    def chain(self, number: int) -> list[str]:
        """Give a record and all it builds on, oldest first."""
        return [self.records[at] for at in range(self.base(number), number + 1)]

    def tell(self, records: list[str]) -> list[Any]:
        """Say how many records, the records, and their bodies if these are small together."""
        heads = [re.fullmatch(r"\w+:(\S*) (\d+)", record) for record in records]
        bodies = [self.bodies[head[1]] for head in heads if head]
        small = sum(int(head[2]) for head in heads if head) <= SMALL
        return [*records, *bodies] if small else records


class Unit:
    """One script's view of a thread; only scripts that write take the time."""

    def __init__(self, line: Line, given: int) -> None:
        self.line, self._given, self.now = line, given, 0

    def enter(self) -> None:
        self.now, self.line.clock = clock.read(self.line.clock, self._given)

    def tick(self) -> None:
        """Take the time, and note it: something else is written anyway."""
        self.now = self.line.clock = max(self.line.clock, self._given)


def speak(line: Line, call: Call[Any], now: int) -> Reply:
    """Say to the twin what a client says to Redis."""
    if call.first:  # HSET, in front of the script
        line.bodies[str(call.first[2])[1:]] = b"".join(call.pieces).decode()
    try:
        clock.check(line.minimum, PROTOCOL)
        return SCRIPTS[call.script](Unit(line, now), *map(_text, call.args))
    except Refused as refused:
        if call.first:
            del line.bodies[str(call.first[2])[1:]]
        return refused.reply


def _text(arg: Arg) -> str:
    return arg.decode() if isinstance(arg, bytes) else str(arg)


def saver_put(u: Unit, id: str, after: str, record: str, key: str, token: str, ttl: str, keep: str, body: str) -> Reply:
    """Append a checkpoint; with a token, only for who holds the claim of its key."""
    line = u.line
    if id in line.ids:
        u.tick()
        return [0, [], line.ids[id]]
    if token:
        held = line.claims.get(key)
        if held is None or held[0] != int(token):
            raise Refused(-31, held[0] if held else 0)
    if after and after != line.last_id:
        raise Refused(-30)
    u.tick()
    line.last += 1
    line.last_id = id
    line.records[line.last], line.ids[id] = record, line.last
    if body:
        line.bodies[id] = body
    if key:
        line.keyed[key] = line.last
        if token:
            del line.claims[key]
    if int(keep) and not after:
        _trim(line, line.last - int(keep) + 1)
    return [1, [], line.last]


def _trim(line: Line, oldest: int) -> None:
    """Drop what nothing from `oldest` on builds on: some with each call, never into the middle of a chain."""
    needed = line.base(oldest) if oldest > line.first else line.first
    if needed > line.first + TRIMMED:
        needed = line.base(line.first + TRIMMED)
    if needed > line.first:
        line.records = {number: record for number, record in line.records.items() if number >= needed}
        line.ids = {id: number for id, number in line.ids.items() if number >= needed}
        line.bodies = {id: body for id, body in line.bodies.items() if id in line.ids}
        line.keyed = {key: number for key, number in line.keyed.items() if number >= needed}
        line.first = needed


def saver_get(u: Unit, by: str, value: str, have: str) -> Reply:
    """Read one checkpoint, unless the caller has it."""
    line = u.line
    number = {"last": line.ids.get(line.last_id), "id": line.ids.get(value), "key": line.keyed.get(value)}[by]
    if number is None:
        return [0, []]
    if have and line.ids.get(have) == number:
        return [2, [], number]
    return [1, [], number, len(line.chain(number)), *line.tell(line.chain(number))]


def saver_list(u: Unit, before: str, limit: str) -> Reply:
    """Read a page of checkpoints that were put before one, or the last ones."""
    line = u.line
    if not line.last_id or (before and before not in line.ids):
        return [0, []]
    last = line.ids[before] - 1 if before else line.last
    wanted = max(line.first, last - min(int(limit), PAGE) + 1)
    if wanted > last:
        return [0, []]
    chain = line.chain(wanted)
    sent = [*chain, *(line.records[n] for n in range(wanted + 1, last + 1))]
    return [1, [], wanted, len(sent), wanted - len(chain) + 1, *line.tell(sent)]


def saver_claim(u: Unit, key: str, owner: str, lease: str, ttl: str) -> Reply:
    """Reserve a key, unless it is done or held by another owner."""
    line = u.line
    if key in line.keyed:
        chain = line.chain(line.keyed[key])
        return [3, [], line.keyed[key], len(chain), *line.tell(chain)]
    u.enter()
    held = line.claims.get(key)
    if held is not None and held[2] != owner and held[1] > u.now:
        return [2, [], held[1] - u.now]
    line.token = max(line.token + 1, u.now // 1000)
    line.claims[key] = line.token, u.now + int(lease), owner
    return [1, [], line.token]


def saver_release(u: Unit, key: str, token: str) -> Reply:
    """End a claim without a result."""
    held = u.line.claims.get(key)
    if held is None or held[0] != int(token):
        return [0, []]
    del u.line.claims[key]
    return [1, []]


def saver_delete(u: Unit, ttl: str) -> Reply:
    """Forget a thread's checkpoints; numbers and tokens go on from where they were."""
    line = u.line
    if line == Line():
        return [0, []]
    line.records, line.ids, line.bodies, line.keyed, line.claims = {}, {}, {}, {}, {}
    line.last_id, line.first = "", line.last + 1
    return [1, []]


def saver_squeeze(u: Unit, id: str, body: str) -> Reply:
    """Put smaller bytes in the place of a body."""
    if id not in u.line.ids:
        return [0, []]
    u.line.bodies[id] = body
    return [1, []]


SCRIPTS: dict[str, Callable[..., Reply]] = {
    "saver_put": saver_put,
    "saver_get": saver_get,
    "saver_list": saver_list,
    "saver_claim": saver_claim,
    "saver_release": saver_release,
    "saver_delete": saver_delete,
    "saver_squeeze": saver_squeeze,
}
