"""One gate read whole from Redis, as the twin's record."""

from typing import Any

from techrevati.store.gates.keys import GateKeys
from techrevati.store.sync import SyncStore
from techrevati.store.twin.gate_state import Gate

DECLARED = {"digest": "digest", "text": "text", "by": "by", "at": "at", "rev": "revision"}
WHOLE = {
    "st": "state",
    "gen": "generation",
    "until": "until",
    "fo": "forced",
    "opens": "opens",
    "f": "failures",
    "run": "run",
    "pr": "probes",
    "ok": "good",
    "rf": "ramp_from",
    "pa": "pace_at",
    "used": "used",
    "halved": "halved",
    "sa": "arrived",
    "due": "due",
    "us": "clock",
    "e0": "epoch",
    "nf": "sick",
}
WINDOW = {
    "we": "epoch",
    "wt": "calls",
    "wf": "failed",
    "ws": "slow",
    "pt": "calls_before",
    "pf": "failed_before",
    "ps": "slow_before",
}


def take(store: SyncStore, keys: GateKeys) -> Gate:
    def pairs(flat: list[Any]) -> dict[str, Any]:
        return dict(zip(flat[::2], flat[1::2], strict=True))

    gate = Gate()
    rates: dict[str, list[float]] = {}
    for name, value in pairs(store.command("HGETALL", keys.clock)).items():
        kind, colon, rest = name.partition(":")
        if colon and kind == "c":
            gate.calls[rest] = value
        elif colon and kind == "b":
            gate.bookings[rest] = value
        elif colon and kind == "x":
            gate.quarantined[rest] = int(value)
        elif colon and kind == "n":
            number, over = value.split(":")
            gate.lanes[rest] = int(number), int(over)
        elif colon and kind == "z":
            gate.levels[rest] = int(value)
        elif colon and kind in ("u", "k"):
            rates.setdefault(rest, [0.0, 0.0])["uk".index(kind)] = float(value)
        elif name in WHOLE:
            setattr(gate, WHOLE[name], int(value))
        elif name in WINDOW:
            setattr(gate.window, WINDOW[name], int(value))
        elif name in DECLARED:
            gate.declared[DECLARED[name]] = value
        elif name == "v":
            gate.version = value
        elif name == "lim":
            gate.limit = float(value)
        elif name == "la":
            gate.latency = int(value)
        else:
            assert name in ("ln", "sq", "names", "min"), name
    gate.rates = {name: (each, int(span)) for name, (each, span) in rates.items()}
    gate.ends = {name: int(at) for name, at in pairs(store.command("ZRANGE", keys.ends, 0, -1, "WITHSCORES")).items()}
    line = pairs(store.command("ZRANGE", keys.line, 0, -1, "WITHSCORES"))
    gate.line = {name: float(rank) for name, rank in line.items()}
    for name, value in pairs(store.command("HGETALL", keys.tags)).items():
        if name == "v":
            gate.virtual = float(value)
        else:
            (gate.tags if name[0] == "t" else gate.sums)[name[2:]] = float(value)
    for worker, value in pairs(store.command("HGETALL", keys.evid)).items():
        failures, run, last = map(int, value.split(" "))
        gate.evidence[worker] = failures, run, last
    gate.slots = {
        name: int(rank) for name, rank in pairs(store.command("ZRANGE", keys.slots, 0, -1, "WITHSCORES")).items()
    }
    lengths = [int(length or 0) for length in store.command("HMGET", keys.clock, "ln", "sq")]
    assert lengths == [len(gate.line), len(gate.slots)]
    return gate
