"""What a gate does, step by step, for a shell that may block or await.

    admit(...) yields Run(call) │ Sleep(s) ──▶ the shell does it, sends back what came ──▶ Admission

One course of events for both worlds: `Gate` and `AsyncGate` differ by one `await`.
"""

import itertools
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.store.calls import Call
from techrevati.store.errors import StoreUnreachable
from techrevati.store.gates.calls import FAIL, FOR_EVER, NONE, Ask, Declared, Outdated, Picture, Seen, Terms, Verdict
from techrevati.store.gates.calls import declare as declare_call
from techrevati.store.gates.calls import force as force_call
from techrevati.store.gates.calls import look as look_call
from techrevati.store.gates.errors import CostTooLarge, GateRefused, UnknownBucket
from techrevati.store.gates.events import DeclarationsDiffer, GateLost, Listeners, StoreBack, StoreTrouble
from techrevati.store.gates.following import followed
from techrevati.store.gates.keys import GateKeys
from techrevati.store.gates.spec import GateSpec
from techrevati.store.gates.view import OPEN, View
from techrevati.store.twin.gate_state import Gate as Twin
from techrevati.store.twin.gates import speak

log = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 5
"""So often a call is built anew because the declaration changed under it."""
PROBE_STORE = 1.0
"""Seconds between two looks whether Redis is back."""
SPREAD_MAX = 60.0
"""Seconds: those refused by a view are spread over no more."""
OFFSET_KEPT = 1.0
"""Seconds for which the offset between the server's clock and ours is believed."""


def this_worker() -> str:
    """A name for this process: who holds, and whose evidence counts once."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(slots=True)
class Run:
    """Say this to Redis, and send back what it means."""

    call: Call[Any]


@dataclass(slots=True)
class Sleep:
    """Wait: until a time of the core's monotonic clock, some seconds from now."""

    until: float
    seconds: float


Effect = Run | Sleep
Steps = Generator[Effect, Any, T]


@dataclass(slots=True)
class Admission:
    """A call that was let out; settle it once it has ended.

    `costs` are what was taken; `began` is monotonic seconds.  `by` says who let it out: "fleet" (Redis), "view" (the
    local view of a closed breaker), "local" or "open" (Redis did not answer).
    """

    gate: str
    call_id: str
    holder: str
    costs: dict[str, float]
    generation: int
    probe: bool
    began: float
    by: str = "fleet"
    actual: dict[str, float] = field(default_factory=dict)
    """Set what the call really cost, where it is known before it is settled."""


class Core:
    """All of a gate but the talking."""

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
        self.monotonic, self.wall = monotonic, wall
        self.view = View(spec.name, self.worker, self.keys.news, spec.staleness, self.listeners, monotonic)
        self.terms: Terms | None = None
        self.told = False
        """Whether a difference between the declarations was reported."""
        self.trips = 0
        """Round trips made."""
        self._ids, self._tag, self._process = itertools.count(1), uuid.uuid4().hex[:12], os.getpid()
        self._twin: tuple[Twin, Terms] | None = None
        self._down_since: float | None = None
        self._down_until = 0.0
        self._offset = float("inf"), 0.0
        self._promised = 0.0, 0.0

    @property
    def name(self) -> str:
        return self.own.name

    @property
    def spec(self) -> GateSpec:
        """What the fleet has declared, as far as this process knows."""
        return self.terms.spec if self.terms else self.own

    def new_id(self) -> str:
        if os.getpid() != self._process:  # a fork counts on from the same number: two calls, one id
            self._ids, self._tag, self._process = itertools.count(1), uuid.uuid4().hex[:12], os.getpid()
        return f"{self._tag}.{next(self._ids)}"

    @property
    def is_away(self) -> bool:
        """Whether Redis did not answer when it was last asked."""
        return self._down_since is not None

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
        return None if why is None else GateRefused(self.own.name, why[0], self._spread(*why))

    def _spread(self, why: str, wait: float | None) -> float | None:
        """Those refused here come back one after another, not all at the moment it reopens."""
        rule = self.spec.breaker
        if wait is None:
            return rule.cooldown if rule else None
        if why != "breaker" or rule is None:
            return wait
        pace = rule.ramp[0] if rule.ramp else rule.pace
        return wait + min(SPREAD_MAX, self.view.next_refused() / pace)

    # Out.

    def admit(
        self,
        costs: Mapping[str, float] | None = None,
        *,
        call_id: str | None = None,
        holder: str | None = None,
        priority: int = 0,
        tenant: str = "",
        timeout: float = 60.0,
        wait: float | None = 0.0,
        booking: str = "",
    ) -> Steps[Admission]:
        costs = dict(costs or {})
        worker = holder or self.worker
        terms = yield from self._ready()
        try:
            terms.check(costs)
        except (UnknownBucket, CostTooLarge):
            if by_now := (yield from self._newer(terms)):
                terms = by_now
            terms.check(costs)
        if not booking and worker == self.worker and (refused := self.refusal()) is not None:
            raise refused
        now = self.monotonic()
        if self._lets_alone(terms, worker, booking, now):
            began = self.monotonic()
            return Admission(
                self.name, call_id or self.new_id(), worker, costs, self.view.generation, False, began, "view"
            )
        deadline = None if wait is None else now + wait
        call_id = call_id or self.new_id()
        lease = round((timeout + terms.spec.margin) * 1e6)
        while True:
            left = FOR_EVER if deadline is None else max(0, round((deadline - self.monotonic()) * 1e6))
            ask = Ask(
                call_id=call_id,
                holder=worker,
                lease_us=lease,
                tenant=tenant,
                priority=priority,
                max_wait_us=left,
                reach_us=FOR_EVER if booking else left,
                booking=booking or (call_id if left else ""),
            )
            try:
                verdict, by = yield from self._talk(lambda terms, ask=ask: terms.admit(ask, costs))  # type: ignore[misc]
            except GeneratorExit:
                raise
            except BaseException as error:
                if not isinstance(error, Exception):  # cancelled while it was asked: nobody is left to use it
                    yield from self._forget(call_id, worker, costs, booking)
                raise
            if verdict is None:
                return Admission(self.name, call_id, worker, costs, 0, False, self.monotonic(), "open")
            if by == "fleet" and worker == self.worker:
                self.view.take(verdict.seen, now)
            if verdict.admitted:
                break
            reachable = 0 < verdict.wait_us <= left and verdict.why in ("rate", "ramp", "slots")
            if not reachable:
                seconds = None if verdict.wait_us < 0 else verdict.wait_us / 1e6
                if not verdict.booked:
                    seconds = self._spread(verdict.why, seconds)
                raise GateRefused(self.name, verdict.why, seconds, verdict.booked)
            try:
                yield self._sleep(verdict, by)
            except GeneratorExit:
                raise
            except BaseException:
                if not booking:
                    yield from self.cancel(call_id)
                raise
            now = self.monotonic()
        made = Admission(
            self.name, call_id, worker, costs, verdict.seen.generation, verdict.probe, self.monotonic(), by
        )
        if verdict.wait_us > 0:
            try:
                yield self._sleep(verdict, by)
            except GeneratorExit:
                raise
            except BaseException:
                yield from self.give_back(made)
                raise
            made.began = self.monotonic()
            if worker == self.worker and (refused := self.refusal()) is not None:  # it opened meanwhile
                yield from self.give_back(made)
                raise refused
        return made

    def _sleep(self, verdict: Verdict, by: str) -> Sleep:
        """Wait until the start that was promised.

        It is a time of the server's clock.  The least seen between its time and a reply's arrival is nearest to what
        lies between the clocks, and believed for all.  A later start never comes before an earlier one.
        """
        now, told = self.monotonic(), verdict.seen.now_us / 1e6
        if by != "fleet":
            return Sleep(now + verdict.wait_us / 1e6, verdict.wait_us / 1e6)
        offset, since = self._offset
        if now - told <= offset or now - since > OFFSET_KEPT:
            offset = now - told
            self._offset = offset, now
        promised = told + verdict.wait_us / 1e6
        start = promised + offset
        last, last_start = self._promised
        if promised >= last:
            start = max(start, last_start + 1e-6)
            self._promised = promised, start
        return Sleep(start, max(0.0, start - now))

    def _forget(self, call_id: str, worker: str, costs: dict[str, float], booking: str) -> Steps[None]:
        if not booking:
            yield from self.cancel(call_id)
        yield from self.report(call_id, worker, generation=0, outcome=NONE, back=costs)

    def _lets_alone(self, terms: Terms, worker: str, booking: str, now: float) -> bool:
        spec = terms.spec
        if spec.buckets or spec.slots is not None or booking or worker != self.worker:
            return False
        return self.view.is_fresh(now) and self.view.lets(now)

    # In.

    def settle(
        self,
        admission: Admission,
        *,
        costs: Mapping[str, float] | None = None,
        outcome: str = "ok",
        failure_class: AgentFailureClass | str | None = None,
        latency: float | None = None,
        overload: bool | None = None,
    ) -> Steps[None]:
        if admission.by == "open":
            return
        rule = self.spec.breaker
        seconds = self.monotonic() - admission.began if latency is None else latency
        slow = rule is not None and rule.slow_call is not None and outcome != NONE and seconds >= rule.slow_call
        if overload is None:
            overload = failure_class is not None and AgentFailureClass(failure_class) is AgentFailureClass.RATE_LIMIT
        if outcome == FAIL and rule is not None and not rule.records(failure_class):
            outcome = NONE
        really = {**admission.actual, **(costs or {})}
        back = {name: admission.costs.get(name, 0.0) - cost for name, cost in really.items()}
        yield from self._settle(
            admission, outcome=outcome, slow=slow, overload=overload, latency_us=round(seconds * 1e6), back=back
        )

    def give_back(self, admission: Admission) -> Steps[None]:
        """The call was never made: its tokens, slot and permit flow back."""
        if admission.by != "open":
            yield from self._settle(admission, outcome=NONE, back=admission.costs)

    def _settle(self, admission: Admission, **how: Any) -> Steps[None]:
        yield from self.report(
            admission.call_id, admission.holder, generation=admission.generation, by=admission.by, **how
        )

    def report(self, call_id: str, holder: str, *, by: str = "fleet", **how: Any) -> Steps[None]:
        """Settle a call, or report an outcome by hand (``generation=None``)."""
        asked = self.monotonic()
        if by == "local":  # what this process let out alone, it settles alone
            if self._twin is not None:
                self._to_twin(lambda terms: terms.settle(call_id, holder, **how))
            return
        seen, by = yield from self._talk(lambda terms: terms.settle(call_id, holder, **how))
        if seen is not None and by == "fleet" and holder == self.worker:
            self.view.take(seen, asked)

    def cancel(self, booking: str) -> Steps[bool]:
        given, _ = yield from self._talk(lambda terms: terms.cancel(booking))
        return bool(given)

    def feed(
        self,
        *,
        retry_after: float | None = None,
        remaining: Mapping[str, float] | None = None,
        reset: Mapping[str, float] | None = None,
        limit: Mapping[str, float] | None = None,
    ) -> Steps[None]:
        terms = yield from self._ready()
        remaining, reset = remaining or {}, reset or {}
        told = {
            name: (
                remaining.get(name),
                None if name not in reset else max(0, round(reset[name] * 1e6)),
            )
            for name in {*remaining, *reset}
            if terms.spec.bucket(name) is not None
        }
        hold = 0 if retry_after is None else max(0, round(retry_after * 1e6))
        asked = self.monotonic()
        seen, by = yield from self._talk(lambda terms: terms.feed(hold, told))
        if seen is not None and by == "fleet":
            self.view.take(seen, asked)
            if limit and self.terms and (spec := followed(self.terms.spec, self.own, limit)) is not None:
                yield from self._declare(following=spec)

    def force(self, what: str) -> Steps[None]:
        """Force it ``open``, ``close`` it now, ``disable`` it, ``enable`` it again."""
        yield from self._ready()
        asked = self.monotonic()
        seen: Seen = yield Run(force_call(self.keys, what, self.worker))
        self.view.take(seen, asked)

    def confirm(self) -> Steps[None]:
        """Make the view fresh, by one round trip if need be."""
        if not self.view.is_fresh(self.monotonic()):
            asked = self.monotonic()
            picture = yield from self.look()
            self.view.take(picture.seen, asked)

    def look(self) -> Steps[Picture]:
        yield from self._ready()
        self.trips += 1
        picture: Picture = yield Run(look_call(self.keys, self.own))
        return picture

    def reconfigure(self, spec: GateSpec) -> Steps[None]:
        """Change the fleet's declaration now, under the next revision; levels stay."""
        yield from self._ready()
        self.own = spec
        yield from self._declare()

    # Declarations.

    def _ready(self) -> Steps[Terms]:
        if self.terms is None and self._is_down():
            return self._alone()
        return self.terms or (yield from self._declare())

    def _declare(self, lost: bool = False, following: GateSpec | None = None) -> Steps[Terms]:
        spec = following or (self.terms.spec if lost and self.terms else self.own)
        until = self.view.until - self.monotonic()
        open_us = round(until * 1e6) if lost and self.view.state == 1 and until > 0 else 0
        call = declare_call(self.keys, spec, self.worker, lost=lost, open_us=open_us)
        asked = self.monotonic()
        try:
            self.trips += 1
            declared: Declared = yield Run(call)
        except StoreUnreachable as error:
            self.trouble(error)
            return self._alone()
        self._found()
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

    def _newer(self, known: Terms) -> Steps[Terms | None]:
        """Look if the gate was declared anew: what it did not have, it may have by now."""
        if self._is_down():
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

    def _talk(self, build: Callable[[Terms], Call[T]]) -> Steps[tuple[T | None, str]]:
        """Say something to the fleet's gate; give the answer and who gave it; None where all calls are let out.

        Raises:
            GateRefused: Redis does not answer, and the gate is declared to fail closed.
        """
        for _ in range(TRIES):
            if self._is_down():
                break
            terms = self.terms or (yield from self._declare())
            if self.terms is None:
                break
            try:
                self.trips += 1
                answer: T = yield Run(build(terms))
                self._found()
                return answer, "fleet"
            except Outdated as error:
                if error.version:
                    yield from self._adopt()
                else:
                    self.listeners.tell(GateLost(self.name))
                    log.warning("gate %r is lost in Redis: it begins again with empty buckets", self.name)
                    yield from self._declare(lost=True)
            except StoreUnreachable as error:
                self.trouble(error)
                break
        mode = self.own.on_store_error
        if mode == "fail_open":
            return None, "open"
        if mode == "fail_closed":
            raise GateRefused(self.name, "store", PROBE_STORE)
        return self._to_twin(build), "local"

    def _to_twin(self, build: Callable[[Terms], Call[T]]) -> T:
        twin, terms = self._local()
        call = build(terms)
        return call.parse(speak(twin, call, round(self.wall() * 1e6)))

    def _local(self) -> tuple[Twin, Terms]:
        """This process's own gate, of the same declaration, for as long as Redis is away."""
        if self._twin is None:
            twin, spec = Twin(), self.spec
            call = declare_call(self.keys, spec, self.worker)
            declared = call.parse(speak(twin, call, round(self.wall() * 1e6)))
            self._twin = twin, Terms(self.keys, spec, declared.version, declared.epoch)
        return self._twin

    def _alone(self) -> Terms:
        """Terms to check costs with while nobody could tell what the fleet declares."""
        return self._local()[1]

    def _is_down(self) -> bool:
        """Whether Redis was away a moment ago; one caller in a while looks again."""
        if self._down_since is None:
            return False
        now = self.monotonic()
        if now < self._down_until:
            return True
        self._down_until = now + PROBE_STORE + self.own.store_patience
        return False

    def trouble(self, error: StoreUnreachable) -> None:
        now = self.monotonic()
        self._down_until = now + PROBE_STORE
        if self._down_since is None:
            self._down_since = now
            mode = self.own.on_store_error
            log.warning("gate %r: %s; until it is back: %s", self.name, error, mode)
            self.listeners.tell(StoreTrouble(self.name, mode, str(error)))

    def _found(self) -> None:
        if self._down_since is not None:
            seconds = self.monotonic() - self._down_since
            self._down_since, self._twin = None, None
            log.warning("gate %r: Redis answers again after %.1f s", self.name, seconds)
            self.listeners.tell(StoreBack(self.name, seconds))


__all__ = ["Admission", "Core", "Effect", "Run", "Sleep", "Steps", "Verdict"]
