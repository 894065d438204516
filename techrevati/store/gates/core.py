"""What a gate does, step by step: refuse, let out, wait, settle.

admit ──view──▶ refused │ let out, no round trip
      ──script─▶ let out │ promised a time: sleep │ in the line for slots: listen │ refused
settle ─script─▶ tokens back or owed, the slot to the next, the evidence to the breaker
"""

from collections.abc import Callable, Mapping
from typing import Any

from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.store.gates.calls import force as force_call
from techrevati.store.gates.calls import look as look_call
from techrevati.store.gates.entry import Admission, Entry
from techrevati.store.gates.errors import CostTooLarge, UnknownBucket
from techrevati.store.gates.following import followed
from techrevati.store.gates.link import Link
from techrevati.store.gates.records import FAIL, NONE, Picture, Seen
from techrevati.store.gates.spec import GateSpec
from techrevati.store.gates.steps import Run, Steps
from techrevati.store.gates.terms import Terms

SPREAD_MAX = 60.0
"""Seconds: those refused by a view are spread over no more."""
OFFSET_KEPT = 1.0
"""Seconds for which the offset between the server's clock and ours is believed."""


class Core(Link):
    """All of a gate but the talking."""

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
        terms = yield from self.ready()
        try:
            terms.check(costs)
        except (UnknownBucket, CostTooLarge):
            if by_now := (yield from self.newer(terms)):
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
        yield from self.return_orphans()
        entry = Entry(
            self,
            costs=costs,
            call_id=call_id or self.new_id(),
            holder=worker,
            priority=priority,
            tenant=tenant,
            lease_us=round((timeout + terms.spec.margin) * 1e6),
            deadline=None if wait is None else now + wait,
            booking=booking,
        )
        return (yield from entry.steps(listens=terms.spec.slots is not None and wait != 0))

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
        yield from self.return_orphans()
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

    def feed(
        self,
        *,
        retry_after: float | None = None,
        remaining: Mapping[str, float] | None = None,
        reset: Mapping[str, float] | None = None,
        limit: Mapping[str, float] | None = None,
    ) -> Steps[None]:
        terms = yield from self.ready()
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
        seen, by = yield from self.talk(lambda terms: terms.feed(hold, told))
        if seen is not None and by == "fleet":
            self.view.take(seen, asked)
            if limit and self.terms and (spec := followed(self.terms.spec, self.own, limit)) is not None:
                yield from self._declare(following=spec)

    def force(self, what: str) -> Steps[None]:
        """Force it ``open``, ``close`` it now, ``disable`` it, ``enable`` it again."""
        yield from self.ready()
        asked = self.monotonic()
        seen: Seen = yield Run(force_call(self.keys, what, self.worker))
        self.view.take(seen, asked)

    def confirm(self, attend: Callable[[], None]) -> Steps[None]:
        """Make the view fresh, by one round trip if need be; `attend` has it kept so."""
        if not self.view.is_fresh(self.monotonic()):
            attend()
            asked = self.monotonic()
            picture = yield from self.look()
            self.view.take(picture.seen, asked)

    def record(self, outcome: str, failure_class: AgentFailureClass | str | None) -> Steps[None]:
        """Count a result by hand, of a call that nobody admitted."""
        rule = self.spec.breaker
        if outcome == FAIL and rule is not None and not rule.records(failure_class):
            return
        yield from self.report(self.new_id(), self.worker, generation=None, outcome=outcome)

    def look(self) -> Steps[Picture]:
        yield from self.ready()
        self.trips += 1
        picture: Picture = yield Run(look_call(self.keys, self.own))
        return picture

    def reconfigure(self, spec: GateSpec) -> Steps[None]:
        """Change the fleet's declaration now, under the next revision; levels stay."""
        yield from self.ready()
        self.own = spec
        yield from self._declare()
