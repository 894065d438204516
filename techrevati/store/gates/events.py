"""What a gate tells whoever listens in this process: plain records, handed to plain functions."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from techrevati.runtime.circuit_breaker import CircuitState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """The fleet's breaker is in another state; `wait` (s) is how long it stays open at least."""

    gate: str
    before: CircuitState
    after: CircuitState
    generation: int
    wait: float
    forced: str = ""


@dataclass(frozen=True, slots=True)
class WorkerQuarantined:
    """Only this worker fails: it lost its own access for some seconds, the fleet keeps its."""

    gate: str
    worker: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DeclarationsDiffer:
    """Two processes declare one gate differently: which one stands, and which does not."""

    gate: str
    stands: str
    stands_by: str
    other: str
    other_by: str
    why: str


@dataclass(frozen=True, slots=True)
class GateLost:
    """Redis knew this gate and does not any more; it begins again with empty buckets."""

    gate: str


@dataclass(frozen=True, slots=True)
class StoreTrouble:
    """Redis does not answer: until it does, `mode` says what this gate does instead."""

    gate: str
    mode: str
    cause: str


@dataclass(frozen=True, slots=True)
class StoreBack:
    """Redis answers again, after some seconds."""

    gate: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StoreRestarted:
    """Another server answers than before: the last moments' levels and outcomes may be lost."""

    gate: str
    before: str
    after: str


Event = BreakerChanged | WorkerQuarantined | DeclarationsDiffer | GateLost | StoreTrouble | StoreBack | StoreRestarted
Listener = Callable[[Event], None]


class Listeners:
    """Who is told; one that fails harms nobody."""

    __slots__ = ("_all",)

    def __init__(self, *first: Listener) -> None:
        self._all = list(first)

    def add(self, listener: Listener) -> None:
        self._all.append(listener)

    def tell(self, event: Event) -> None:
        for listener in list(self._all):
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %s", event)
