"""How safe a write is before its caller goes on.

    memory       in the server's memory, and in its AOF as its settings say (everysec: about a second may be lost)
    fsync        on the server's disk: `appendfsync always`, or WAITAOF behind the write (Redis 7.2)
    replicated   on every replica that was connected when we were: WAIT behind the write

What the server cannot do is refused when we connect, with the fix.  A wait that times out is `DurabilityUnknown`:
the write is done, and not yet safe.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from techrevati.store.errors import ScriptFault, StoreDenied, StoreError, StoreUnfit
from techrevati.store.talk import Command, Talk

_WAITAOF = (7, 2)


class Durability(StrEnum):
    MEMORY = "memory"
    FSYNC = "fsync"
    REPLICATED = "replicated"


class DurabilityUnknown(StoreError):
    """A write is done, but was not confirmed as safe within the wait; it may still become so."""

    def __init__(self, what: str, durability: str, timeout_ms: int, confirmed: int, wanted: int) -> None:
        super().__init__(what, durability, timeout_ms, confirmed, wanted)
        self.what, self.durability, self.timeout_ms = what, durability, timeout_ms
        self.confirmed, self.wanted = confirmed, wanted

    def __str__(self) -> str:
        look = "the server's disk" if self.durability == Durability.FSYNC else "which replica lags (INFO replication)"
        return (
            f"{self.what} is committed, but {self.confirmed} of {self.wanted} confirmed it within {self.timeout_ms} ms "
            f"(durability '{self.durability}'); fix: check {look}, then read it, or put it again"
        )


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself."""

    version: tuple[int, ...]
    appendonly: bool | None
    """None: it does not let us look."""
    appendfsync: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Wait:
    """What is sent behind a write, and how many have to confirm it."""

    durability: Durability
    command: tuple[str | int, ...]
    wanted: int
    timeout_ms: int

    def check(self, what: str, reply: Any) -> None:
        """Read the answer.

        Raises:
            DurabilityUnknown: too few confirmed.
        """
        confirmed = int(reply[0] if self.durability is Durability.FSYNC else reply)
        if confirmed < self.wanted:
            raise DurabilityUnknown(what, self.durability, self.timeout_ms, confirmed, self.wanted)


def plan(server: Server, durability: Durability, *, timeout_ms: int = 1000, replicas: int | None = None) -> Wait | None:
    """Say what has to be waited for; None: a reply is enough.

    Raises:
        StoreUnfit: the server cannot do it; says how it could.
    """
    if durability is Durability.MEMORY:
        return None
    if durability is Durability.REPLICATED:
        if server.replicas < (replicas or 1):
            raise StoreUnfit(
                f"durability='replicated' wants {replicas or 'at least 1'} connected replica(s), "
                f"the server has {server.replicas}",
                "add replicas (REPLICAOF), wait until they are connected, or use durability='fsync'",
            )
        wanted = replicas or server.replicas
        return Wait(durability, ("WAIT", wanted, timeout_ms), wanted, timeout_ms)
    if server.appendonly is False:
        raise StoreUnfit("durability='fsync' needs an append-only file, the server has none", "set appendonly yes")
    if server.appendonly and server.appendfsync == "always":
        return None  # Redis syncs before it replies
    if server.appendfsync == "no":
        raise StoreUnfit(
            "durability='fsync' with appendfsync no: nobody tells the disk to", "set it to always or everysec"
        )
    if server.version >= _WAITAOF:
        return Wait(durability, ("WAITAOF", 1, 0, timeout_ms), 1, timeout_ms)
    shown = ".".join(map(str, server.version))
    raise StoreUnfit(
        f"durability='fsync' needs WAITAOF (Redis 7.2; this is {shown}) or appendfsync always "
        f"(this server: {server.appendfsync or 'not told'})",
        "set appendfsync always, or upgrade the server",
    )


def _facts(info: str, config: Mapping[str, str] | None) -> Server:
    told = dict(re.findall(r"^([a-z_0-9]+):(.*?)\r?$", info, re.MULTILINE))
    # Valkey says which Redis it is compatible with under `redis_version`; WAITAOF came with that number, too.
    version = tuple(int(part) for part in re.findall(r"\d+", told.get("redis_version", "0"))[:3])
    # A replica that only copies what it is sent is counted once it is online.
    online = len(re.findall(r"^slave\d+:.*state=online", info, re.MULTILINE))
    only = None if config is None else config.get("appendonly") == "yes"
    return Server(version, only, (config or {}).get("appendfsync", ""), online)


def look() -> Talk[Server]:
    """Ask a server what it can do."""
    info = yield Command(("INFO",))
    try:
        flat = yield Command(("CONFIG", "GET", "append*"))
    except (StoreDenied, ScriptFault):  # managed servers hide their settings
        return _facts(info, None)
    return _facts(info, dict(zip(flat[::2], flat[1::2], strict=True)))
