"""The scripts of a gate, one function each: the same arguments, the same reply, on a `Gate` in memory.

    speak(gate, call, now) ──▶ gate_admit(...) · gate_settle(...) · ... ──▶ reply

This is the specification; the property tests send Redis and this the same calls.  It also is the gate of a process
that has lost its store (``on_store_error="local"``).
"""

from collections.abc import Callable
from typing import Any

from techrevati.store.calls import Call
from techrevati.store.scripts import PROTOCOL
from techrevati.store.twin.gate_admit import gate_admit
from techrevati.store.twin.gate_declare import gate_feed, gate_look, gate_set
from techrevati.store.twin.gate_settle import gate_cancel, gate_settle
from techrevati.store.twin.gate_state import Gate, Refused, Reply, Unit
from techrevati.store.twin.gate_take import gate_take


def speak(g: Gate, call: Call[Any], now: int) -> Reply:
    """Say to the twin what a client says to Redis."""
    try:
        reply: Reply = SCRIPTS[call.script](Unit(g, PROTOCOL, now), *map(str, call.args))
        return reply
    except Refused as refused:
        return refused.reply


SCRIPTS: dict[str, Callable[..., Reply]] = {
    script.__name__: script
    for script in (gate_admit, gate_take, gate_settle, gate_cancel, gate_feed, gate_set, gate_look)
}
