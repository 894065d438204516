"""What one process says to the fleet's gate: under the declaration that stands, and alone if nobody answers.

talk(build) ──Run──▶ the fleet's answer
     ├── Outdated ──▶ adopt what stands, or declare anew what was lost; again
     └── StoreUnreachable ──▶ fail_open │ fail_closed │ local: this process's own twin
"""

import itertools
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.store.calls import Call
from techrevati.store.errors import StoreUnreachable
from techrevati.store.gates.away import PROBE_STORE, Away
from techrevati.store.gates.calls import declare as declare_call
from techrevati.store.gates.calls import look as look_call
from techrevati.store.gates.clocks import Clocks
from techrevati.store.gates.errors import GateRefused
from techrevati.store.gates.events import BreakerChanged, DeclarationsDiffer, Event, GateLost, Listeners
from techrevati.store.gates.following import followed, signed, told_before
from techrevati.store.gates.keys import GateKeys
from techrevati.store.gates.records import NONE, Declared, Outdated, Picture
from techrevati.store.gates.spec import GateSpec
from techrevati.store.gates.steps import Run, Steps
from techrevati.store.gates.terms import Terms
from techrevati.store.gates.view import OPEN, View
from techrevati.store.gates.waiting import Ear

log = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 5
"""So often a call is built anew because the declaration changed under it."""
SPREAD_MAX = 60.0
"""Seconds: those refused by a view are spread over no more."""


def this_worker() -> str:
    """A name for this process: who holds, and whose evidence counts once."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Link:
    """A gate as one process knows it, and its way to the fleet's."""

    def __init__(
        self,
        fleet: str,
        spec: GateSpec,
        *,
        worker: str | None = None,
        listeners: Listeners | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.keys, self.own = GateKeys(fleet, spec.name), spec
        self.worker = worker or this_worker()
        self.listeners = listeners or Listeners()
        self.listeners.add(self._hear)
        self.monotonic, self.wall = monotonic, wall
        self.view = View(spec.name, self.worker, self.keys.news, spec.staleness, self.listeners, monotonic)
        self.terms: Terms | None = None
        self.trips = 0
        """Round trips made."""
        self.clocks = Clocks()
        self._begin()
        self.away = Away(self.keys, spec, self.worker, self.listeners, monotonic, wall)

    def _begin(self) -> None:
        self._ids, self._tag, self._process = itertools.count(1), uuid.uuid4().hex[:12], os.getpid()
        self.ear = Ear(self._tag, self.keys.ear(self._tag), self.monotonic)

    @property
    def name(self) -> str:
        return self.own.name

    @property
    def spec(self) -> GateSpec:
        """What the fleet has declared, as far as this process knows."""
        return self.terms.spec if self.terms else self.own

    def notice_fork(self) -> None:
        """A fork counts on from the same number, and hears on the same channel: two calls, one id."""
        if os.getpid() != self._process:
            self._begin()

    def new_id(self) -> str:
        self.notice_fork()
        return f"{self._tag}.{next(self._ids)}"

    def _hear(self, event: Event) -> None:
        """Who waits for a slot of a gate that does not let out any more has to know."""
        if isinstance(event, BreakerChanged) and (event.forced or event.after is not CircuitState.CLOSED):
            self.ear.all_ask_again()

    # What the local view can say alone.

    def refusal(self) -> GateRefused | None:
        """Say from the local view if a call would be refused for sure; no round trip."""
        view = self.view
        view.used_at = now = self.monotonic()
        if now - view.confirmed >= view.staleness:
            return None
        terms = self.terms
        if view.state == OPEN and view.out_until < now < view.until and view.forced == 0 and terms and terms.pace:
            # `_spread` in a straight line: this is the one that a storm of callers meets.
            behind = view.next_refused() / terms.pace
            return GateRefused(
                self.own.name, "breaker", view.until - now + (behind if behind < SPREAD_MAX else SPREAD_MAX)
            )
        why = view.refuses(now)
        return None if why is None else GateRefused(self.own.name, why[0], self.spread(*why))

    def spread(self, why: str, wait: float | None) -> float | None:
        """Those refused here come back one after another, not all at the moment it reopens."""
        rule = self.spec.breaker
        if wait is None:
            return rule.cooldown if rule else None
        if why != "breaker" or rule is None:
            return wait
        pace = rule.ramp[0] if rule.ramp else rule.pace
        return wait + min(SPREAD_MAX, self.view.next_refused() / pace)

    # Declarations.

    def ready(self) -> Steps[Terms]:
        if self.terms is None and self.away.is_known():
            return self.away.terms(self.spec)
        return self.terms or (yield from self._declare())

    def _declare(self, lost: bool = False, following: GateSpec | None = None) -> Steps[Terms]:
        spec = following or (self.terms.spec if lost and self.terms else self.own)
        until = self.view.until - self.monotonic()
        open_us = round(until * 1e6) if lost and self.view.state == 1 and until > 0 else 0
        by = self.worker if following is None else signed(self.worker, following, self.own)
        call = declare_call(self.keys, spec, by, lost=lost, open_us=open_us)
        asked = self.monotonic()
        try:
            self.trips += 1
            declared: Declared = yield Run(call)
        except StoreUnreachable as error:
            self.away.trouble(error)
            return self.away.terms(self.spec)
        self.away.back(self.ear)
        if lost:
            self.view.reset()
        self.view.take(declared.seen, asked)
        stands = self.own.adopt(declared.stands.text, declared.stands.revision)
        self.terms = Terms(self.keys, stands, declared.version, declared.epoch)
        before, why = declared.before, "the newer declaration stands" if following is None else "the provider says so"
        if not declared.taken and stands.digest != self.own.digest:
            self._differ(
                declared.stands.text, declared.stands.by, self.own.text, self.worker, "a higher revision stands"
            )
        elif declared.taken and before is not None and before.text != declared.stands.text:
            self._differ(declared.stands.text, self.worker, before.text, before.by, why)
            if following is None:  # what the provider said to the others holds for this one, too
                told = told_before(before.by, self.own.adopt(before.text, before.revision))
                if told and (lower := followed(stands, self.own, told)) is not None:
                    return (yield from self._declare(following=lower))
        return self.terms

    def _adopt(self) -> Steps[Terms]:
        """Another process has declared it anew: take that."""
        picture: Picture = yield Run(look_call(self.keys))
        stands = self.own.adopt(picture.stands.text, picture.stands.revision)
        self.terms = Terms(self.keys, stands, picture.version, picture.epoch)
        if stands.digest != self.own.digest:
            self._differ(
                picture.stands.text, picture.stands.by, self.own.text, self.worker, "another process declared it"
            )
        return self.terms

    def newer(self, known: Terms) -> Steps[Terms | None]:
        """Look if the gate was declared anew: what it did not have, it may have by now."""
        if self.away.is_known():
            return None
        try:
            picture: Picture = yield Run(look_call(self.keys))
        except (StoreUnreachable, Outdated):
            return None
        return None if picture.version == known.version else (yield from self._adopt())

    def _differ(self, stands: str, by: str, other: str, other_by: str, why: str) -> None:
        event = DeclarationsDiffer(self.name, stands, by, other, other_by, why)
        log.warning("gate %r: %s declares %s, %s declares %s; %s", self.name, by, stands, other_by, other, why)
        self.listeners.tell(event)

    # Talking, and what becomes of it when nobody answers.

    def talk(self, build: Callable[[Terms], Call[T]]) -> Steps[tuple[T | None, str]]:
        """Say something to the fleet's gate; give the answer and who gave it; None where all calls are let out.

        Raises:
            GateRefused: Redis does not answer, and the gate is declared to fail closed.
        """
        for _ in range(TRIES):
            if self.away.is_known():
                break
            terms = self.terms or (yield from self._declare())
            if self.terms is None:
                break
            try:
                self.trips += 1
                answer: T = yield Run(build(terms))
                self.away.back(self.ear)
                return answer, "fleet"
            except Outdated as error:
                if error.version:
                    yield from self._adopt()
                else:
                    self.listeners.tell(GateLost(self.name))
                    log.warning("gate %r is lost in Redis: it begins again with empty buckets", self.name)
                    yield from self._declare(lost=True)
            except StoreUnreachable as error:
                self.away.trouble(error)
                break
        mode = self.own.on_store_error
        if mode == "fail_open":
            return None, "open"
        if mode == "fail_closed":
            raise GateRefused(self.name, "store", PROBE_STORE)
        return self.away.alone(self.spec, build, self.ear), "local"

    def report(self, call_id: str, holder: str, *, by: str = "fleet", **how: Any) -> Steps[None]:
        """Settle a call, or report an outcome by hand (``generation=None``)."""
        asked = self.monotonic()
        if by == "local":  # what this process let out alone, it settles alone
            self.away.settle_alone(lambda terms: terms.settle(call_id, holder, **how), self.ear)
            return
        seen, by = yield from self.talk(lambda terms: terms.settle(call_id, holder, **how))
        if seen is not None and by == "fleet" and holder == self.worker:
            self.view.take(seen, asked)

    def cancel(self, booking: str) -> Steps[bool]:
        given, _ = yield from self.talk(lambda terms: terms.cancel(booking))
        return bool(given)

    def forget(self, call_id: str, holder: str, costs: dict[str, float]) -> Steps[None]:
        """Nobody is left to use what this call may have been given: take it out of any line, or settle it."""
        if not (yield from self.cancel(call_id)):
            yield from self.report(call_id, holder, generation=0, outcome=NONE, back=costs)

    def return_orphans(self) -> Steps[None]:
        """Settle what was given to callers that had left."""
        while self.ear.orphans:
            call_id, generation = self.ear.orphans.popleft()
            yield from self.report(call_id, self.worker, generation=generation, outcome=NONE)
