"""The gate of one external dependency, for a loop and for threads.

    async with gate.call({"rpm": 1, "input_tpm": 900}) as admission:     # admit: one round trip at most
        reply = await client.complete(...)
        admission.actual["input_tpm"] = reply.input_tokens               # settle: one round trip

Both shells drive the same steps; they differ by one `await`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.runtime.endings import failure_class_of
from techrevati.store.aio import AsyncStore
from techrevati.store.calls import Call
from techrevati.store.errors import StoreUnreachable
from techrevati.store.gates.calls import FAIL, NONE, OK, Picture
from techrevati.store.gates.core import Core
from techrevati.store.gates.entry import Admission
from techrevati.store.gates.errors import GateRefused
from techrevati.store.gates.events import Listener, Listeners
from techrevati.store.gates.listening import NewsListener
from techrevati.store.gates.spec import GateSpec
from techrevati.store.gates.steps import Effect, Listen, Run, Sleep, Steps
from techrevati.store.gates.waiting import Ear
from techrevati.store.sync import SyncStore
from techrevati.store.wire import safe_url

T = TypeVar("T")


class _Shell:
    """What both shells share: the core, the news, what needs no talking."""

    def __init__(
        self,
        url: str,
        fleet: str,
        spec: GateSpec,
        *,
        worker: str | None = None,
        news: NewsListener | None = None,
        on_event: Listener | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        listeners = Listeners(*([on_event] if on_event else []))
        self.core = Core(fleet, spec, worker=worker, listeners=listeners, monotonic=monotonic, wall=wall)
        self._own_news = news is None
        self._news = news or NewsListener(url)
        self._watching = False
        self._heard_by: Ear | None = None

    @property
    def name(self) -> str:
        return self.core.name

    @property
    def spec(self) -> GateSpec:
        """What the fleet has declared, as far as this process knows."""
        return self.core.spec

    def on_event(self, listener: Listener) -> None:
        """Hand state changes, quarantines and store trouble to a function; from whichever thread notices."""
        self.core.listeners.add(listener)

    def check(self) -> None:
        """Refuse at once what the local view refuses: no round trip.

        Raises:
            GateRefused: the breaker is open, or this worker is quarantined.
        """
        refused = self.core.refusal()
        if refused is not None:
            raise refused
        self._look_after_view()

    def refuses(self) -> bool:
        """Whether the local view is fresh and refuses every call: no round trip."""
        view, now = self.core.view, self.core.monotonic()
        return view.is_fresh(now) and view.refuses(now) is not None

    @property
    def seen(self) -> CircuitState:
        """The breaker's state in the local view, however old that is."""
        return self.core.view.circuit(self.core.monotonic())

    def _look_after_view(self) -> None:
        view = self.core.view
        if view.staleness == 0 or self.core.spec.breaker is None:
            return
        if not self._watching:
            self._watching = True
            self._news.watch(view)
        elif self.core.monotonic() - view.confirmed > view.staleness / 2:
            self._news.ask()

    def _listen_for_slots(self, wait: float | None) -> None:
        """Have the news of who is let out come here before anybody waits for one."""
        ear, before = self.core.ear, self._heard_by
        if wait == 0 or self.core.spec.slots is None or ear is before:
            return
        self._heard_by = ear
        self._news.watch(ear)
        if before is not None:  # the parent's, of a process that was forked
            self._news.leave(before)

    def _leave(self) -> None:
        if self._own_news:
            self._news.close()
            return
        if self._watching:
            self._news.leave(self.core.view)
        if self._heard_by is not None:
            self._news.leave(self._heard_by)


class AsyncGate(_Shell):
    """One dependency's gate, for the tasks of an event loop."""

    def __init__(self, store: AsyncStore, fleet: str, spec: GateSpec, **how: Any) -> None:
        """`how`: worker, news (a shared `NewsListener`), on_event, monotonic, wall."""
        super().__init__(store.url, fleet, spec, **how)
        self._store = store

    async def _run(self, call: Call[T]) -> T:
        patience = self.core.own.store_patience
        try:
            async with asyncio.timeout(patience):  # the store itself waits longer for a server that hangs
                return await self._store.run(call, patience=patience)
        except TimeoutError as error:
            raise StoreUnreachable(safe_url(self._store.url), "no answer in time") from error

    async def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Run):
            return await self._run(effect.call)
        # At a time, not after a delay: a loop that is late to go to sleep does not change who starts first.
        loop = asyncio.get_running_loop()
        until = effect.until if self.core.monotonic is time.monotonic else loop.time() + effect.seconds
        awake = loop.create_future()
        timer = loop.call_at(until, _wake, awake)
        try:
            if isinstance(effect, Sleep):
                return await awake
            effect.ticket.bell = partial(_ring, loop, awake)
            if not effect.ticket.told:
                await awake
            return effect.ticket.next()
        finally:
            timer.cancel()

    async def _drive(self, steps: Steps[T]) -> T:
        """Do what the steps ask for."""
        try:
            effect = next(steps)
            while True:
                try:
                    came = await self._do(effect)
                except BaseException as error:  # noqa: BLE001 - the steps decide what it means
                    effect = steps.throw(error)
                else:
                    effect = steps.send(came)
        except StopIteration as end:
            result: T = end.value
            return result

    async def admit(
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
    ) -> Admission:
        """Let one call out through breaker, buckets and slots, all or nothing.

        Args:
            costs: tokens per bucket; absent ones cost nothing.
            call_id: of this attempt; sent again, it gets the same answer.
            timeout: of the call (s); its slot's lease lasts `spec.margin` longer.
            wait: seconds to wait here for a start; None as long as it takes.  An open breaker is not waited for.
            booking: a name for the place of a caller that is refused, to come back with (run and turn).

        Raises:
            GateRefused: `why`, and in `wait` when to come back; `booked` if that time is reserved.
            UnknownBucket, BadCost, CostTooLarge: naming the bucket; nothing was asked.
            StoreDenied: Redis refused the credentials.
        """
        self._look_after_view()
        self._listen_for_slots(wait)
        return await self._drive(
            self.core.admit(
                costs,
                call_id=call_id,
                holder=holder,
                priority=priority,
                tenant=tenant,
                timeout=timeout,
                wait=wait,
                booking=booking,
            )
        )

    async def settle(
        self,
        admission: Admission,
        *,
        costs: Mapping[str, float] | None = None,
        outcome: str = OK,
        failure_class: AgentFailureClass | str | None = None,
        latency: float | None = None,
        overload: bool | None = None,
    ) -> None:
        """Take the end of a call: what it cost, how it went.  A second time, it changes nothing.

        Args:
            costs: what it really cost; the rest flows back, more is owed.  Absent buckets stay at the estimate.
            outcome: "ok", "fail", or "none" where it says nothing of the dependency.
            failure_class: decides if a failure is evidence (`BreakerSpec.records`).
            latency: seconds; since it was let out, if not given.
            overload: the provider was overloaded (429): adaptive slots halve.
        """
        await self._drive(
            self.core.settle(
                admission,
                costs=costs,
                outcome=outcome,
                failure_class=failure_class,
                latency=latency,
                overload=overload,
            )
        )

    async def give_back(self, admission: Admission) -> None:
        """Say that the call was never made: tokens, slot and permit flow back."""
        await self._drive(self.core.give_back(admission))

    async def cancel(self, booking: str) -> bool:
        """Give a booking back; False if there was none."""
        return await self._drive(self.core.cancel(booking))

    async def feed(
        self,
        *,
        retry_after: float | None = None,
        remaining: Mapping[str, float] | None = None,
        reset: Mapping[str, float] | None = None,
        limit: Mapping[str, float] | None = None,
    ) -> None:
        """Tell the fleet what the provider said.

        Args:
            retry_after: seconds to stay away.
            remaining, reset: per bucket, what is left and in how many seconds it is full again.
            limit: per bucket, what it allows a minute: a lower one takes the place of what is declared, for everyone
                (`GateSpec.provider_limits`).
        """
        await self._drive(self.core.feed(retry_after=retry_after, remaining=remaining, reset=reset, limit=limit))

    @asynccontextmanager
    async def call(self, costs: Mapping[str, float] | None = None, **how: Any) -> AsyncIterator[Admission]:
        """Admit, time and settle what is done inside; `how` as in `admit`."""
        admission = await self.admit(costs, **how)
        try:
            yield admission
        except Exception as error:
            await self.settle(admission, outcome=FAIL, failure_class=failure_class_of(error))
            raise
        except BaseException:
            await asyncio.shield(self.settle(admission, outcome=NONE))
            raise
        await self.settle(admission)

    async def record(self, outcome: str, failure_class: AgentFailureClass | str | None = None) -> None:
        """Count a result by hand, of a call that nobody admitted."""
        await self._drive(_by_hand(self.core, outcome, failure_class))

    async def state(self) -> CircuitState:
        """The state a caller would meet, no older than the staleness bound."""
        if not self.core.view.is_fresh(self.core.monotonic()):
            self._look_after_view()
            await self._drive(self.core.confirm())
        return self.seen

    async def look(self) -> Picture:
        """What the gate is now, for a screen."""
        return await self._drive(self.core.look())

    async def force_open(self) -> None:
        """Refuse everything, everywhere, until `enable`."""
        await self._drive(self.core.force("open"))

    async def force_close(self) -> None:
        """Close it now and forget its failures."""
        await self._drive(self.core.force("close"))

    async def disable(self) -> None:
        """Let everything through the breaker and count nothing, until `enable`."""
        await self._drive(self.core.force("disable"))

    async def enable(self) -> None:
        """Go back to the rule, closed."""
        await self._drive(self.core.force("enable"))

    async def reconfigure(self, spec: GateSpec) -> None:
        """Change the fleet's declaration; raise its `revision` to outlast restarts.  Levels stay as they are."""
        await self._drive(self.core.reconfigure(spec))

    async def close(self) -> None:
        """Stop listening; the store is its owner's to close."""
        await asyncio.to_thread(self._leave)


class Gate(_Shell):
    """`AsyncGate` for threads; safe to share between them."""

    def __init__(
        self, store: SyncStore, fleet: str, spec: GateSpec, *, sleep: Callable[[float], None] = time.sleep, **how: Any
    ) -> None:
        super().__init__(store.url, fleet, spec, **how)
        self._store, self._sleep = store, sleep

    def _run(self, call: Call[T]) -> T:
        return self._store.run(call, patience=self.core.own.store_patience)

    def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Run):
            return self._run(effect.call)
        if isinstance(effect, Listen):
            return effect.ticket.wait(effect.seconds)
        return self._sleep(effect.seconds)

    def _drive(self, steps: Steps[T]) -> T:
        """Do what the steps ask for."""
        try:
            effect = next(steps)
            while True:
                try:
                    came = self._do(effect)
                except BaseException as error:  # noqa: BLE001 - the steps decide what it means
                    effect = steps.throw(error)
                else:
                    effect = steps.send(came)
        except StopIteration as end:
            result: T = end.value
            return result

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
    ) -> Admission:
        """`AsyncGate.admit`, blocking this thread."""
        self._look_after_view()
        self._listen_for_slots(wait)
        return self._drive(
            self.core.admit(
                costs,
                call_id=call_id,
                holder=holder,
                priority=priority,
                tenant=tenant,
                timeout=timeout,
                wait=wait,
                booking=booking,
            )
        )

    def settle(
        self,
        admission: Admission,
        *,
        costs: Mapping[str, float] | None = None,
        outcome: str = OK,
        failure_class: AgentFailureClass | str | None = None,
        latency: float | None = None,
        overload: bool | None = None,
    ) -> None:
        """`AsyncGate.settle`."""
        self._drive(
            self.core.settle(
                admission,
                costs=costs,
                outcome=outcome,
                failure_class=failure_class,
                latency=latency,
                overload=overload,
            )
        )

    def give_back(self, admission: Admission) -> None:
        """`AsyncGate.give_back`."""
        self._drive(self.core.give_back(admission))

    def cancel(self, booking: str) -> bool:
        """`AsyncGate.cancel`."""
        return self._drive(self.core.cancel(booking))

    def feed(
        self,
        *,
        retry_after: float | None = None,
        remaining: Mapping[str, float] | None = None,
        reset: Mapping[str, float] | None = None,
        limit: Mapping[str, float] | None = None,
    ) -> None:
        """`AsyncGate.feed`."""
        self._drive(self.core.feed(retry_after=retry_after, remaining=remaining, reset=reset, limit=limit))

    @contextmanager
    def call(self, costs: Mapping[str, float] | None = None, **how: Any) -> Iterator[Admission]:
        """`AsyncGate.call`."""
        admission = self.admit(costs, **how)
        try:
            yield admission
        except Exception as error:
            self.settle(admission, outcome=FAIL, failure_class=failure_class_of(error))
            raise
        except BaseException:
            self.settle(admission, outcome=NONE)
            raise
        self.settle(admission)

    def record(self, outcome: str, failure_class: AgentFailureClass | str | None = None) -> None:
        """`AsyncGate.record`."""
        self._drive(_by_hand(self.core, outcome, failure_class))

    def state(self) -> CircuitState:
        """`AsyncGate.state`."""
        if not self.core.view.is_fresh(self.core.monotonic()):
            self._look_after_view()
            self._drive(self.core.confirm())
        return self.seen

    def look(self) -> Picture:
        """`AsyncGate.look`."""
        return self._drive(self.core.look())

    def force_open(self) -> None:
        """`AsyncGate.force_open`."""
        self._drive(self.core.force("open"))

    def force_close(self) -> None:
        """`AsyncGate.force_close`."""
        self._drive(self.core.force("close"))

    def disable(self) -> None:
        """`AsyncGate.disable`."""
        self._drive(self.core.force("disable"))

    def enable(self) -> None:
        """`AsyncGate.enable`."""
        self._drive(self.core.force("enable"))

    def reconfigure(self, spec: GateSpec) -> None:
        """`AsyncGate.reconfigure`."""
        self._drive(self.core.reconfigure(spec))

    def close(self) -> None:
        """`AsyncGate.close`."""
        self._leave()


def _wake(sleeper: "asyncio.Future[None]") -> None:
    if not sleeper.done():
        sleeper.set_result(None)


def _ring(loop: asyncio.AbstractEventLoop, sleeper: "asyncio.Future[None]") -> None:
    with suppress(RuntimeError):  # a loop that is closed: nobody waits
        loop.call_soon_threadsafe(_wake, sleeper)


def _by_hand(core: Core, outcome: str, failure_class: AgentFailureClass | str | None) -> Steps[None]:
    if outcome == FAIL and core.spec.breaker is not None and not core.spec.breaker.records(failure_class):
        return
    yield from core.report(core.new_id(), core.worker, generation=None, outcome=outcome)


__all__ = ["AsyncGate", "Gate", "GateRefused"]
