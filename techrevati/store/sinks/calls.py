"""What is said to Redis about events and usage, as values; see ``lua/sink_write.lua``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from techrevati.store.calls import Arg, Call
from techrevati.store.errors import ScriptFault, UpgradeRequired
from techrevati.store.keys import check_role, check_tenant
from techrevati.store.records import pairs
from techrevati.store.scripts import PROTOCOL

BATCH_MAX = 128


@dataclass(frozen=True, slots=True)
class SinkKeys:
    """The key names of one sink; the mirror of the head of ``lua/sink_write.lua``."""

    fleet: str
    tenant: str
    name: str

    def __post_init__(self) -> None:
        check_role(self.fleet, "fleet")
        check_tenant(self.tenant)
        check_role(self.name, "sink")

    @property
    def clock(self) -> str:
        return f"sink:{{{self.fleet}:{self.tenant}:{self.name}}}"

    @property
    def log(self) -> str:
        return f"{self.clock}:log"

    @property
    def totals(self) -> str:
        return f"{self.clock}:totals"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to write: `key` makes it count once, `sums` is added up in total and by `group`."""

    data: str
    key: str = ""
    group: str = ""
    sums: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """One entry as it was written; numbers are dense."""

    number: int
    at: int
    group: str
    data: str

    @classmethod
    def parse(cls, entry: Sequence[Any]) -> "Stored":
        fields = pairs(entry[1])
        return cls(int(entry[0].partition("-")[0]), int(fields["at"]), fields["group"], fields["data"])


def write(
    keys: SinkKeys, writer: str, batch: int, entries: Sequence[Entry], *, most: int, ttl_ms: int, window_us: int
) -> Call[int]:
    """Append a batch; gives how many of its entries were new."""

    def parse(reply: Sequence[Any]) -> int:
        if reply[0] == -10:
            raise UpgradeRequired(PROTOCOL, int(reply[2]))
        if reply[0] < 0:
            raise ScriptFault("sink_write", repr(reply))
        return int(reply[2])

    args: list[Arg] = [writer, batch, most, ttl_ms, window_us]
    for entry in entries:
        args += (entry.key, entry.group, entry.sums, entry.data)
    return Call("sink_write", keys, args, parse)
