"""Gates of several workers on one server, with a clock of the test's own, and gates in a few words."""

import time
from collections.abc import Callable

from techrevati.store.gates import (
    BreakerSpec,
    BucketSpec,
    Event,
    Gate,
    GateSpec,
)
from techrevati.store.sync import SyncStore

S = 1_000_000


class Hall:
    """Gates of several workers on one server, with a clock of the test's own for Redis and for them."""

    def __init__(self, url: str, fleet: str) -> None:
        self.now = 1_700_000_000.0
        self.url, self.fleet = url, fleet
        self.stores: list[SyncStore] = []
        self.gates: list[Gate] = []
        self.slept: list[float] = []
        self.events: list[Event] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def gate(self, spec: GateSpec, worker: str = "w1") -> Gate:
        store = SyncStore(self.url, patience=0.5, now_us=lambda: round(self.now * S))
        gate = Gate(
            store,
            self.fleet,
            spec,
            worker=worker,
            sleep=self.sleep,
            on_event=self.events.append,
            monotonic=lambda: self.now,
            wall=lambda: self.now,
        )
        self.stores.append(store)
        self.gates.append(gate)
        return gate

    def saw(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def close(self) -> None:
        for gate in self.gates:
            gate.close()
        for store in self.stores:
            store.close()


def until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def rate(*buckets: BucketSpec, **more: object) -> GateSpec:
    return GateSpec(name="api", buckets=buckets, staleness=0, **more)  # type: ignore[arg-type]


def breaker(**rule: object) -> GateSpec:
    return GateSpec(name="api", breaker=BreakerSpec(**rule), staleness=0)  # type: ignore[arg-type]


def fail(gate: Gate, times: int = 1, **how: object) -> None:
    for _ in range(times):
        gate.settle(gate.admit(), outcome="fail", **how)  # type: ignore[arg-type]
