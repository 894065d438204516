"""The sink's script on one sink in memory: entries in order, sums, and what was there already.

Twin: ``lua/sink_write.lua``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from techrevati.store.calls import Call
from techrevati.store.scripts import PROTOCOL
from techrevati.store.twin import clock
from techrevati.store.twin.unit import Refused, Reply

WRITERS_DROPPED, SEEN_DROPPED = 16, 256


@dataclass(slots=True)
class Sink:
    """All that is under one sink's hash tag."""

    clock: int = 0
    minimum: int | None = None
    seq: int = 0
    log: list[tuple[int, int, str, str]] = field(default_factory=list)
    """Number, when (us), group, JSON."""
    totals: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    writers: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Writer -> when, its last batch."""


def speak(sink: Sink, call: Call[Any], now: int) -> Reply:
    """Say to the twin what a client says to Redis."""
    try:
        clock.check(sink.minimum, PROTOCOL)
        time, sink.clock = clock.read(sink.clock, now)
        return SCRIPTS[call.script]((sink, time), *map(str, call.args))
    except Refused as refused:
        return refused.reply


def sink_write(u: tuple[Sink, int], writer: str, batch: str, most: str, ttl: str, window: str, *entries: str) -> Reply:
    """Append entries and add up what they carry, each once."""
    sink, now = u
    if writer in sink.writers and sink.writers[writer][1] >= int(batch):
        return [0, [], 0, sink.seq]
    sink.writers[writer] = now, int(batch)
    old = now - int(window)
    gone = sorted((at, name) for name, (at, _batch) in sink.writers.items() if at <= old)
    for _at, name in gone[:WRITERS_DROPPED]:
        del sink.writers[name]
    for at, key in sorted((at, key) for key, at in sink.seen.items())[:SEEN_DROPPED]:
        if at <= old:
            del sink.seen[key]
    written = 0
    for key, group, sums, data in zip(entries[::4], entries[1::4], entries[2::4], entries[3::4], strict=True):
        if key and sink.seen.get(key, old) > old:
            continue
        if key:
            sink.seen[key] = now
        sink.seq += 1
        written += 1
        sink.log.append((sink.seq, now, group, data))
        for name, amount in re.findall(r"([A-Za-z]+):(-?\d+)", sums):
            for total in (name, f"{name}:{group}"):
                sink.totals[total] = sink.totals.get(total, 0) + int(amount)
    return [1, [], written, sink.seq]


SCRIPTS: dict[str, Callable[..., Reply]] = {"sink_write": sink_write}
