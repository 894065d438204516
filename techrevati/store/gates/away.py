"""What becomes of a gate while Redis does not answer: let all out, none, or what this process alone would.

trouble(error) ──▶ away ──a look each second──▶ back()
                    └── twin: the scripts in memory, under the declaration known last
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from techrevati.store.calls import Call
from techrevati.store.errors import StoreUnreachable
from techrevati.store.gates.calls import declare as declare_call
from techrevati.store.gates.events import Listeners, StoreBack, StoreTrouble
from techrevati.store.gates.keys import GateKeys
from techrevati.store.gates.spec import GateSpec
from techrevati.store.gates.terms import Terms
from techrevati.store.gates.waiting import Ear
from techrevati.store.twin.gate_state import Gate as Twin
from techrevati.store.twin.gates import speak

log = logging.getLogger(__name__)

T = TypeVar("T")

PROBE_STORE = 1.0
"""Seconds between two looks whether Redis is back."""


class Away:
    """Whether one gate's Redis is away, and the gate of this process meanwhile.  Safe for threads."""

    def __init__(
        self,
        keys: GateKeys,
        spec: GateSpec,
        worker: str,
        listeners: Listeners,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._keys, self._own, self._worker, self._listeners = keys, spec, worker, listeners
        self._monotonic, self._wall = monotonic, wall
        self._lock = threading.Lock()
        self._twin: tuple[Twin, Terms] | None = None
        self._since: float | None = None
        self._until = 0.0

    def __bool__(self) -> bool:
        """Whether it did not answer when it was last asked."""
        return self._since is not None

    def is_known(self) -> bool:
        """Whether it was away a moment ago; one caller in a while looks again."""
        if self._since is None:
            return False
        now = self._monotonic()
        if now < self._until:
            return True
        self._until = now + PROBE_STORE + self._own.store_patience
        return False

    def trouble(self, error: StoreUnreachable) -> None:
        now = self._monotonic()
        self._until = now + PROBE_STORE
        if self._since is None:
            self._since = now
            mode = self._own.on_store_error
            log.warning("gate %r: %s; until it is back: %s", self._own.name, error, mode)
            self._listeners.tell(StoreTrouble(self._own.name, mode, str(error)))

    def back(self, ear: Ear) -> None:
        """It answers: who waits at the twin asks the fleet."""
        if self._since is not None:
            seconds = self._monotonic() - self._since
            self._since, self._twin = None, None
            ear.all_ask_again()
            log.warning("gate %r: Redis answers again after %.1f s", self._own.name, seconds)
            self._listeners.tell(StoreBack(self._own.name, seconds))

    def terms(self, spec: GateSpec) -> Terms:
        """The declaration of this process's own gate."""
        with self._lock:
            return self._gate(spec)[1]

    def alone(self, spec: GateSpec, build: Callable[[Terms], Call[T]], ear: Ear) -> T:
        """Ask this process's own gate."""
        with self._lock:
            twin, terms = self._gate(spec)
            call = build(terms)
            answer = call.parse(speak(twin, call, round(self._wall() * 1e6)))
            said = [text for _, text in twin.whispered]
            twin.whispered.clear()
            twin.said.clear()
        for text in said:
            ear.hear(text)
        return answer

    def settle_alone(self, build: Callable[[Terms], Call[T]], ear: Ear) -> None:
        """Settle what this process let out alone; nothing, once the fleet's gate answers again."""
        if self._twin is not None:
            self.alone(self._twin[1].spec, build, ear)

    def _gate(self, spec: GateSpec) -> tuple[Twin, Terms]:
        if self._twin is None:
            twin = Twin()
            call = declare_call(self._keys, spec, self._worker)
            declared = call.parse(speak(twin, call, round(self._wall() * 1e6)))
            self._twin = twin, Terms(self._keys, spec, declared.version, declared.epoch)
        return self._twin
