"""Model calls of turns, through the fleet's gates and budgets.

    call ─▶ reserve the budget ┐ one          ┌─▶ the client ─▶ settle both: tokens, cost, latency, outcome;
            admit at the gate  ┘ round trip ──┤                 feed the gate what the provider said of its limits
                                              └─▶ Refused: what the other one gave is given back

A model without a gate, in a fleet without a budget, goes straight to its client.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from techrevati.fleet.budgets import news_for
from techrevati.fleet.calling import Refused, Route, route_of
from techrevati.fleet.charges import NOT_MADE, Charge, answered, at_most, broke_off, costs, own_costs, told, verdict
from techrevati.fleet.estimates import Estimate, estimate
from techrevati.fleet.gatehouse import Gatehouse
from techrevati.fleet.models import ModelReply, ModelRequest
from techrevati.fleet.turn import Turn
from techrevati.store.budgets import AsyncBudget, BudgetRefused, Cost, Reservation, Scope, call_id
from techrevati.store.errors import StoreError
from techrevati.store.gates import Admission, AsyncGate, GateRefused, UnknownBucket
from techrevati.telemetry.metrics import LimitMetrics

THROTTLES = 20
"""How often one turn lets providers send it away with a time to come back, before that counts as a failure."""
PARTS = 1000
"""Calls that one `turn.model` may make: its ordinals are apart by so many."""


@dataclass(frozen=True, slots=True)
class Let:
    """What is held for a call that was let out."""

    gate: AsyncGate | None
    admission: Admission | None
    reservation: Reservation | None
    news: str
    """The tenant's log of money was read up to here."""
    own: Mapping[str, float]
    """What its author says that it costs the gate's buckets."""


class GatedCalls:
    """The calls of one `turn.model`: one, or several where the model is a route or was made to wait."""

    def __init__(self, house: Gatehouse, turn: Turn, ordinal: int) -> None:
        self._house, self._turn = house, turn
        run_id, thread_id = turn.root  # what a sub-agent spends, its parent's budget pays
        self._scope = Scope(turn.tenant, turn.project_id, thread_id, run_id)
        self._booking = f"{turn.run_id}:{turn.number}:{ordinal}"
        self._place = f"place:{ordinal}"
        self._parts = ordinal * PARTS

    async def call(self, name: str, request: ModelRequest) -> ModelReply:
        """Call a model once its gate and the budget let it.

        Raises:
            Refused: they do not, or the provider sent it away with a time to come back.
            Exception: what the client raised.
        """
        return await self._call(name, request, book=True)

    async def _call(self, name: str, request: ModelRequest, *, book: bool) -> ModelReply:
        house, client = self._house, self._house.models[name]
        if (route := route_of(client)) is not None:
            self._check(name, request, getattr(route, "models", ()))
            return await self._route(route, request, book=book)
        gate = house.gates.get(name)
        told = {**house.costs.get(name, {}), **request.costs}
        if gate is None:
            self._check(name, request, ())
        own = {} if gate is None else own_costs(gate.spec, told, request)
        if not house.minds(name):
            async with asyncio.timeout(request.timeout):
                return await client.complete(request)
        guess, asked = estimate(name, request), house.monotonic()
        let = await self.enter(name, guess, request.timeout, book=book, own=own)
        begun = house.monotonic()
        try:
            async with asyncio.timeout(request.timeout):  # not around the settling: a paid answer is never late
                reply = await client.complete(request)
        except BaseException as error:
            now = house.monotonic()
            charge = broke_off(error, guess, timed_out=now - asked >= request.timeout * 0.99)
            await self.leave(let, charge, now - begun)
            wait = charge.feedback.retry_after
            sent_away = let.gate is not None and charge.overloaded and not charge.made and wait is not None
            if sent_away and self._turn.tally("throttled") <= THROTTLES:
                raise Refused(name, "throttled", wait, str(error)) from error
            raise
        await self.leave(let, answered(reply), house.monotonic() - begun)
        return reply

    async def _route(self, route: Route, request: ModelRequest, *, book: bool) -> ModelReply:
        """Try the models of a route; where none is admitted, stand in line at the one that is soonest."""
        try:
            async with asyncio.timeout(request.timeout):
                return await route.route(request, _Asks(self))
        except Refused as refused:
            if not book or refused.wait is None or refused.why == "throttled":
                raise
            self._turn.keep(self._place, refused.model)
            return await self._call(refused.model, self._meant_for(refused.model, request), book=True)

    async def ask(self, name: str, request: ModelRequest) -> ModelReply:
        """Call a model of a route: only where this turn has its place in line already does it book."""
        meant = self._meant_for(name, request)
        return await self._call(name, meant, book=self._turn.recall(self._place) == name)

    def _check(self, name: str, request: ModelRequest, models: Sequence[str]) -> None:
        """Refuse costs that no gate of a model, or of a route's models, has a bucket for."""
        gates = [self._house.gates[model] for model in models if model in self._house.gates]
        known = {bucket.name for gate in gates for bucket in gate.spec.buckets}
        if unknown := sorted(request.costs.keys() - known):
            raise UnknownBucket(name, unknown[0], tuple(sorted(known)))

    def _meant_for(self, name: str, request: ModelRequest) -> ModelRequest:
        """Leave out the costs that concern other models of the route."""
        gate = self._house.gates.get(name)
        kept = {} if gate is None else {b: cost for b, cost in request.costs.items() if gate.spec.bucket(b) is not None}
        return request if len(kept) == len(request.costs) else replace(request, costs=kept)

    # -- in ----------------------------------------------------------------------------------------

    async def enter(
        self, name: str, guess: Estimate, timeout: float, *, book: bool, own: Mapping[str, float] | None = None
    ) -> Let:
        """Have one call let out; `leave` gives back what is held for it.

        Raises:
            Refused: gate or budget does not admit it now.
        """
        self._parts += 1
        ident = call_id(self._turn.run_id, self._turn.number, self._turn.token, self._parts)
        booking = self._booking if book else ""
        entering = self._house.spawn(self._ask_both(name, ident, guess, timeout, booking, own or {}))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            # What was asked of the store is granted all the same, and nobody is left to use it.
            entering.add_done_callback(self._give_back)
            raise

    async def _ask_both(
        self, name: str, ident: str, guess: Estimate, timeout: float, booking: str, own: Mapping[str, float]
    ) -> Let:
        """Ask gate and budget in one round trip; what one gives is given back if the other refuses."""
        house, tenant = self._house, self._scope.tenant
        gate, budget = house.gates.get(name), house.budget
        asked: tuple[Any, Any, Any] = await asyncio.gather(
            _nothing() if gate is None else self._admit(gate, ident, guess, timeout, booking, own),
            _nothing() if budget is None else budget.reserve(self._scope, ident, _cost(guess), timeout=timeout),
            _nothing() if budget is None else self._house.last_news(tenant),
            return_exceptions=True,
        )
        admission, reservation, news = asked
        if house.metrics is not None:
            self._measure(house.metrics, name, asked)
        errors = [one for one in (reservation, admission, news) if isinstance(one, BaseException)]
        if not errors:
            return Let(gate, admission, reservation, news or "", own)
        held = Let(
            gate,
            admission if isinstance(admission, Admission) else None,
            reservation if isinstance(reservation, Reservation) else None,
            "",
            own,
        )
        await self._settle(held, NOT_MADE, 0.0)
        match errors[0]:
            case BudgetRefused() as error:
                if gate is not None and isinstance(admission, GateRefused) and admission.booked:
                    await gate.cancel(booking)
                self._turn.note("budget.refused", {"model": name, "reason": str(error)})
                raise Refused(name, "budget", None, str(error)) from error
            case GateRefused() as error:
                raise Refused(name, error.why, error.wait) from error
            case error:
                raise error

    def _admit(
        self, gate: AsyncGate, ident: str, guess: Estimate, timeout: float, booking: str, own: Mapping[str, float]
    ) -> Awaitable[Admission]:
        guessed = at_most(costs(gate.spec, 1, guess.input_tokens, guess.output_tokens), gate.spec)
        return gate.admit(
            {**guessed, **own},
            call_id=ident,
            tenant=self._scope.tenant,
            priority=self._turn.priority,
            timeout=timeout,
            booking=booking,
        )

    def _measure(self, metrics: LimitMetrics, gate: str, answers: Iterable[object]) -> None:
        for answer in answers:
            match answer:
                case Admission():
                    metrics.admitted(gate, answer.by)
                case GateRefused():
                    metrics.refused(gate, answer.why, answer.wait)
                case Reservation():
                    metrics.reserved(self._kinds, answer.estimate.usd)
                case BudgetRefused():
                    metrics.over_budget(answer.level.partition(":")[0], answer.account)

    @property
    def _kinds(self) -> list[str]:
        """The kinds of scope that pay for this turn's calls."""
        return [kind for kind, _ in self._scope.levels()]

    def _give_back(self, entered: "asyncio.Task[Let]") -> None:
        if not entered.cancelled() and entered.exception() is None:
            self._house.spawn(self._settle(entered.result(), NOT_MADE, 0.0))

    # -- out ---------------------------------------------------------------------------------------

    async def leave(self, let: Let, charge: Charge, seconds: float) -> None:
        """Say what became of a call, to its end even if the caller is cancelled."""
        try:
            await asyncio.shield(self._house.spawn(self._settle(let, charge, seconds)))
        except StoreError as error:  # the leases settle it at what was estimated
            self._turn.log.warning("a model call is not settled: %s", error)

    async def _settle(self, let: Let, charge: Charge, seconds: float) -> None:
        """Say in one round trip what became of a call."""
        gate = let.gate
        work: list[Awaitable[Any]] = []
        if (budget := self._house.budget) is not None and let.reservation is not None:
            closing = budget.settle(let.reservation, _cost(charge)) if charge.made else budget.release(let.reservation)
            work += [closing, self._tell_news(budget, let.news)]
            if (measured := self._house.metrics) is not None:
                measured.reserved(self._kinds, -let.reservation.estimate.usd)
                if charge.made:
                    measured.spent(self._kinds, charge.cost_micros, charge.input_tokens + charge.output_tokens)
        if gate is not None and let.admission is not None:
            if self._house.metrics is not None:
                self._house.metrics.settled(gate.name)
            own = let.own if charge.made else dict.fromkeys(let.own, 0.0)
            work.append(self._settle_gate(gate, let.admission, charge, seconds, own))
            if (said := told(charge.feedback, gate.spec, gate.core.own)) is not None:
                feeding = gate.feed(
                    retry_after=said.retry_after, remaining=said.remaining, reset=said.reset, limit=said.limit
                )
                work.append(feeding)
        before = None if gate is None else gate.seen
        await asyncio.gather(*work)
        if gate is not None and gate.seen is not before:
            self._turn.note("gate.state", {"gate": gate.name, "state": gate.seen.value})

    async def _settle_gate(
        self, gate: AsyncGate, admission: Admission, charge: Charge, seconds: float, own: Mapping[str, float]
    ) -> None:
        if charge is NOT_MADE:
            await gate.give_back(admission)
            return
        outcome, failure = verdict(charge)
        await gate.settle(
            admission,
            costs={**costs(gate.spec, 1, charge.rated, charge.output_tokens), **own},
            outcome=outcome,
            failure_class=failure,
            latency=seconds,
            overload=charge.overloaded,
        )

    async def _tell_news(self, budget: AsyncBudget, after: str) -> None:
        """Tell the run what the books noticed meanwhile; what cannot be read is not worth a paid call."""
        if not after:
            return
        with contextlib.suppress(StoreError):
            levels = [level for _, level in self._scope.levels()]
            events = await budget.events(self._scope.tenant, after=after)
            for kind, data in news_for(levels, self._turn.run_id, events):
                self._turn.note(kind, data)


class _Asks:
    """The same calls for a route: it asks several, and stands in line at one at most."""

    def __init__(self, calls: GatedCalls) -> None:
        self._calls = calls

    async def call(self, name: str, request: ModelRequest) -> ModelReply:
        return await self._calls.ask(name, request)


def _cost(of: Estimate | Charge) -> Cost:
    return Cost(of.cost_micros, of.input_tokens + of.output_tokens)


async def _nothing() -> Any:
    return None
