"""The fleet's gate and budget in the shapes that a session knows: breaker, limiter, usage sink.

    arun_turn ─▶ SessionBreaker.call ─▶ gate and budget let it out ─▶ the author's call ─▶ outcome, latency
              ─▶ SessionLimiter.acquire_usage ─▶ its tokens are owed at the gate
              ─▶ usage sink ─▶ its cost settles the reservation

What a session's call will cost nobody knows before: it is let out while anything is left, and its cost counts.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import ParamSpec, TypeVar

from techrevati.fleet.calling import Caller
from techrevati.fleet.charges import Charge, broke_off, costs
from techrevati.fleet.estimates import Estimate
from techrevati.fleet.gated import GatedCalls, Let
from techrevati.fleet.gatehouse import Gatehouse
from techrevati.fleet.turn import Turn
from techrevati.fleet.turn_session import Shared
from techrevati.runtime.circuit_breaker import AsyncCircuitBreaker, CircuitState
from techrevati.runtime.fanout import FanOutUsageSink
from techrevati.runtime.rate_limit import AsyncRateLimiter
from techrevati.runtime.usage_tracking import UsageSnapshot
from techrevati.store.gates import FAIL, NONE, OK, Admission, AsyncGate

P = ParamSpec("P")
T = TypeVar("T")

LEAST = Estimate(1, 0, 1)
NOTHING = Estimate(0, 0, 0)
ANSWERED = Charge(True, "", False, 0, 0, 0, 0)
TIMEOUT = 600.0
"""Seconds that a session's call may hold a slot: its own timeout is not known here."""
APART = 1_000_000
"""Ordinals of a session's calls begin here: those of `turn.model` are below."""


class SessionGate:
    """One turn's hold on a gate (or none) and the budget (or none), for its session."""

    def __init__(self, house: Gatehouse, turn: Turn, name: str) -> None:
        self._house, self._turn, self.name = house, turn, name
        self.gate: AsyncGate | None = house.gates.get(name)
        self._ordinals = itertools.count(APART)
        self._unpriced: list[tuple[GatedCalls, Let]] = []
        self._pricing: set[asyncio.Task[None]] = set()

    def shared(self) -> Shared:
        limiter = None if self.gate is None else SessionLimiter(self)
        return Shared(SessionBreaker(self), limiter, usage=self, ended=self.ended)

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do a session's call once it is let out; what is held for its cost waits for `record`."""
        async with self.held():
            return await work()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold what a call needs until it has ended, was cut, or its reader went away."""
        if self._pricing:  # what the call before has cost must count
            await asyncio.wait(self._pricing)
        calls = GatedCalls(self._house, self._turn, next(self._ordinals))
        let = await self._turn.admitted(lambda: calls.enter(self.name, LEAST, TIMEOUT, book=True))
        begun, priced = self._house.monotonic(), (calls, replace(let, gate=None, admission=None))
        if let.reservation is not None:  # a stream that is left tells its cost before it ends here
            self._unpriced.append(priced)
        let = replace(let, reservation=None)
        try:
            yield
        except BaseException as error:
            charge = broke_off(error, NOTHING, timed_out=False)
            await calls.leave(let, charge, self._house.monotonic() - begun)
            if priced in self._unpriced:
                self._unpriced.remove(priced)
                await calls.leave(priced[1], charge, 0.0)
            raise
        await calls.leave(let, ANSWERED, self._house.monotonic() - begun)

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        """Put what a call did cost in the place of what was reserved: the session's usage sink."""
        if self._unpriced:
            calls, let = self._unpriced.pop(0)
            charge = replace(
                ANSWERED,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cost_micros=round(cost_usd * 1e6),
            )
            task = self._house.spawn(calls.leave(let, charge, 0.0))
            self._pricing.add(task)
            task.add_done_callback(self._pricing.discard)

    def ended(self) -> None:
        """Give back what is held for calls whose cost nobody told."""
        held, self._unpriced = self._unpriced, []
        for calls, let in held:
            self._house.spawn(calls.leave(let, ANSWERED, 0.0))


class SessionBreaker(AsyncCircuitBreaker):
    """The fleet's breaker, buckets, slots and budget where a session has its breaker."""

    _admit = None  # type: ignore[assignment]  # a permit takes a round trip

    def __init__(self, session: SessionGate) -> None:
        super().__init__(session.name)
        self._session = session

    async def call(self, coro_factory: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``coro_factory(*args, **kwargs)`` once it is let out.

        Raises:
            Parked: that takes longer than a turn should wait.
            BudgetRefused, GateRefused: it is not let out; nothing was called.
        """
        return await self._session.call(lambda: coro_factory(*args, **kwargs))

    def permit(self) -> AbstractAsyncContextManager[None]:
        """Hold what a call needs for as long as its stream runs."""
        return self._session.held()

    async def record_success(self) -> None:
        if self._session.gate is not None:
            await self._session.gate.record(OK)

    async def record_failure(self) -> None:
        if self._session.gate is not None:
            await self._session.gate.record(FAIL)

    async def state(self) -> CircuitState:
        return CircuitState.CLOSED if self._session.gate is None else await self._session.gate.state()

    async def is_open(self) -> bool:
        return await self.state() is CircuitState.OPEN

    async def reset(self) -> None:
        if self._session.gate is not None:
            await self._session.gate.force_close()


class SessionLimiter(AsyncRateLimiter):
    """The tokens of a session's calls, owed at the fleet's gate: later calls wait for them, this one does not."""

    def __init__(self, session: SessionGate) -> None:
        super().__init__()
        self._session = session

    async def acquire_pre_call(self, *, request_cost: float = 1.0, timeout: float | None = None) -> None:
        """Nothing: the call is let out as a whole."""

    async def acquire_usage(self, *, input_tokens: int, output_tokens: int, timeout: float | None = None) -> None:
        gate = self._session.gate
        assert gate is not None
        used = costs(gate.spec, 0, input_tokens, output_tokens)
        if any(used.values()):
            core = gate.core
            nothing = Admission(gate.name, core.new_id(), core.worker, {}, 0, False, core.monotonic())
            await gate.settle(nothing, costs=used, outcome=NONE, latency=0.0)


class Outgoing:
    """How the turns of one process let their calls out."""

    def __init__(self, house: Gatehouse, gate_of: Mapping[str, str]) -> None:
        """`gate_of`: agent -> the gate of its sessions; without one, the fleet's only gate, if it has but one."""
        self._house, self._gate_of = house, gate_of
        self._only = next(iter(house.gates)) if len(house.gates) == 1 else ""

    def caller(self, turn: Turn, ordinal: int) -> Caller:
        return GatedCalls(self._house, turn, ordinal)

    def shared(self, turn: Turn) -> Shared:
        name, savers, sinks = self._gate_of.get(turn.agent) or self._only, self._house.savers, self._house.sinks
        minds = self._house.minds(name)
        found = SessionGate(self._house, turn, name or turn.agent).shared() if minds else Shared()
        if savers is not None:
            found = replace(found, saver=savers.of(turn.tenant))
        if sinks is not None:
            events, usage = sinks.of(turn)
            found = replace(found, events=events, usage=FanOutUsageSink(found.usage, usage))
        return found
