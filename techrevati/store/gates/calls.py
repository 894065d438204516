"""Calls that need no declaration to be known: declare a gate, put a hand on it, look at it.

declare(keys, spec) ──▶ Call ──▶ Declared        look(keys) ──▶ Call ──▶ Picture
"""

from collections.abc import Sequence
from typing import Any

from techrevati.store.calls import Arg, Call
from techrevati.store.gates.keys import GateKeys
from techrevati.store.gates.records import Declared, Picture, Seen, Standing, code_of
from techrevati.store.gates.spec import GateSpec
from techrevati.store.gates.terms import rate_text


def declare(keys: GateKeys, spec: GateSpec, by: str, *, lost: bool = False, open_us: int = 0) -> Call[Declared]:
    """Say what the gate is; `lost`: it was there before, so its buckets begin empty."""
    args: list[Arg] = ["declare", spec.revision, spec.digest, spec.text, by, "empty" if lost else "full", open_us]
    for bucket in sorted(spec.buckets, key=lambda bucket: bucket.name):
        args += (bucket.name, rate_text(bucket.each_ns), bucket.span_ns)
    return Call("gate_set", keys, args, _declared)


def force(keys: GateKeys, what: str, by: str) -> Call[Seen]:
    """Force it ``open``, ``close`` it now, ``disable`` it, or ``enable`` it again."""

    def parse(reply: Sequence[Any]) -> Seen:
        code_of(reply, "gate_set")
        return Seen(*reply[2:7])

    return Call("gate_set", keys, (what, 0, "", "", by, "full", 0), parse)


def look(keys: GateKeys, spec: GateSpec | None = None) -> Call[Picture]:
    """Ask what the gate is; `spec` gives levels in tokens."""

    def parse(reply: Sequence[Any]) -> Picture:
        code_of(reply, "gate_look")
        epoch, now = int(reply[3]), int(reply[8])
        stands = _standing(reply[4:8])
        buckets = {} if spec is None else spec.adopt(stands.text, stands.revision).buckets
        known = {bucket.name: bucket for bucket in buckets}
        flat, levels = reply[19], {}
        for name, empty in zip(flat[::2], flat[1::2], strict=True):
            if name in known:
                bucket = known[name]
                levels[name] = min(bucket.capacity, ((now - epoch) * 1000 - float(empty)) / bucket.each_ns)
        return Picture(
            version=reply[2],
            epoch=epoch,
            stands=stands,
            seen=Seen(now, reply[9], reply[10], reply[11], reply[12]),
            failures=reply[13],
            probes=reply[14],
            slots_used=reply[15],
            slot_limit=float(reply[16]),
            openings=reply[17],
            in_line=reply[18],
            levels=levels,
        )

    return Call("gate_look", keys, (), parse)


def _standing(at: Sequence[Any]) -> Standing:
    return Standing(str(at[0]), str(at[1]), int(at[2] or 0), int(at[3]))


def _declared(reply: Sequence[Any]) -> Declared:
    code = code_of(reply, "gate_set")
    before = _standing(reply[8:12]) if reply[8] else None
    return Declared(code == 1, reply[2], int(reply[3]), _standing(reply[4:8]), before, Seen(*reply[12:17]))
