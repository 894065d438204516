"""The gate of one external dependency, for a loop and for threads.

    async with gate.call({"rpm": 1, "input_tpm": 900}) as admission:     # admit: one round trip at most
        reply = await client.complete(...)
        admission.actual["input_tpm"] = reply.input_tokens               # settle: one round trip

Both shells drive the steps of one core; they differ by one `await`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar, Unpack

from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.runtime.endings import failure_class_of
from techrevati.store.aio import AsyncStore
from techrevati.store.calls import Call
from techrevati.store.errors import StoreUnreachable
from techrevati.store.gates.entry import Admission
from techrevati.store.gates.errors import GateRefused
from techrevati.store.gates.records import FAIL, NONE, Picture
from techrevati.store.gates.shell import Admit, Feed, Settle, Shell
from techrevati.store.gates.spec import GateSpec
from techrevati.store.gates.steps import Effect, Listen, Run, Sleep, Steps
from techrevati.store.sync import SyncStore
from techrevati.store.wire import safe_url

T = TypeVar("T")


class AsyncGate(Shell):
    """One dependency's gate, for the tasks of an event loop."""

    def __init__(self, store: AsyncStore, fleet: str, spec: GateSpec, **how: Any) -> None:
        """`how`: worker, news (a shared `NewsListener`), on_event, monotonic, wall."""
        super().__init__(store.url, fleet, spec, **how)
        self._store = store

    async def admit(self, costs: Mapping[str, float] | None = None, **how: Unpack[Admit]) -> Admission:
        """Let one call out through breaker, buckets and slots, all or nothing.

        `costs` are tokens per bucket; absent ones cost nothing.

        Raises:
            GateRefused: `why`, and in `wait` when to come back; `booked` if that time is reserved.
            UnknownBucket, BadCost, CostTooLarge: naming the bucket; nothing was asked.
            StoreDenied: Redis refused the credentials.
        """
        self.attend(how.get("wait", 0.0))
        return await self.drive(self.core.admit(costs, **how))

    async def settle(self, admission: Admission, **how: Unpack[Settle]) -> None:
        """Take the end of a call: what it cost, how it went.  A second time, it changes nothing."""
        await self.drive(self.core.settle(admission, **how))

    async def give_back(self, admission: Admission) -> None:
        """Say that the call was never made: tokens, slot and permit flow back."""
        await self.drive(self.core.give_back(admission))

    async def cancel(self, booking: str) -> bool:
        """Give a booking back; False if there was none."""
        return await self.drive(self.core.cancel(booking))

    async def feed(self, **said: Unpack[Feed]) -> None:
        """Tell the fleet what the provider said."""
        await self.drive(self.core.feed(**said))

    @asynccontextmanager
    async def call(self, costs: Mapping[str, float] | None = None, **how: Unpack[Admit]) -> AsyncIterator[Admission]:
        """Admit, time and settle what is done inside."""
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
        await self.drive(self.core.record(outcome, failure_class))

    async def state(self) -> CircuitState:
        """The state a caller would meet, no older than the staleness bound."""
        await self.drive(self.core.confirm(self.attend_view))
        return self.seen

    async def look(self) -> Picture:
        """What the gate is now, for a screen."""
        return await self.drive(self.core.look())

    async def force_open(self) -> None:
        """Refuse everything, everywhere, until `enable`."""
        await self.drive(self.core.force("open"))

    async def force_close(self) -> None:
        """Close it now and forget its failures."""
        await self.drive(self.core.force("close"))

    async def disable(self) -> None:
        """Let everything through the breaker and count nothing, until `enable`."""
        await self.drive(self.core.force("disable"))

    async def enable(self) -> None:
        """Go back to the rule, closed."""
        await self.drive(self.core.force("enable"))

    async def reconfigure(self, spec: GateSpec) -> None:
        """Change the fleet's declaration; raise its `revision` to outlast restarts.  Levels stay as they are."""
        await self.drive(self.core.reconfigure(spec))

    async def close(self) -> None:
        """Stop listening; the store is its owner's to close."""
        await asyncio.to_thread(self.leave)

    async def drive(self, steps: Steps[T]) -> T:
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

    async def _run(self, call: Call[T]) -> T:
        patience = self.core.own.store_patience
        try:
            async with asyncio.timeout(patience):  # the store itself waits longer for a server that hangs
                return await self._store.run(call, patience=patience)
        except TimeoutError as error:
            raise StoreUnreachable(safe_url(self._store.url), "no answer in time") from error


class Gate(Shell):
    """`AsyncGate` for threads; safe to share between them."""

    def __init__(
        self, store: SyncStore, fleet: str, spec: GateSpec, *, sleep: Callable[[float], None] = time.sleep, **how: Any
    ) -> None:
        super().__init__(store.url, fleet, spec, **how)
        self._store, self._sleep = store, sleep

    def admit(self, costs: Mapping[str, float] | None = None, **how: Unpack[Admit]) -> Admission:
        """`AsyncGate.admit`, blocking this thread."""
        self.attend(how.get("wait", 0.0))
        return self.drive(self.core.admit(costs, **how))

    def settle(self, admission: Admission, **how: Unpack[Settle]) -> None:
        """`AsyncGate.settle`."""
        self.drive(self.core.settle(admission, **how))

    def give_back(self, admission: Admission) -> None:
        """`AsyncGate.give_back`."""
        self.drive(self.core.give_back(admission))

    def cancel(self, booking: str) -> bool:
        """`AsyncGate.cancel`."""
        return self.drive(self.core.cancel(booking))

    def feed(self, **said: Unpack[Feed]) -> None:
        """`AsyncGate.feed`."""
        self.drive(self.core.feed(**said))

    @contextmanager
    def call(self, costs: Mapping[str, float] | None = None, **how: Unpack[Admit]) -> Iterator[Admission]:
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
        self.drive(self.core.record(outcome, failure_class))

    def state(self) -> CircuitState:
        """`AsyncGate.state`."""
        self.drive(self.core.confirm(self.attend_view))
        return self.seen

    def look(self) -> Picture:
        """`AsyncGate.look`."""
        return self.drive(self.core.look())

    def force_open(self) -> None:
        """`AsyncGate.force_open`."""
        self.drive(self.core.force("open"))

    def force_close(self) -> None:
        """`AsyncGate.force_close`."""
        self.drive(self.core.force("close"))

    def disable(self) -> None:
        """`AsyncGate.disable`."""
        self.drive(self.core.force("disable"))

    def enable(self) -> None:
        """`AsyncGate.enable`."""
        self.drive(self.core.force("enable"))

    def reconfigure(self, spec: GateSpec) -> None:
        """`AsyncGate.reconfigure`."""
        self.drive(self.core.reconfigure(spec))

    def close(self) -> None:
        """`AsyncGate.close`."""
        self.leave()

    def drive(self, steps: Steps[T]) -> T:
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

    def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Run):
            return self._store.run(effect.call, patience=self.core.own.store_patience)
        if isinstance(effect, Listen):
            return effect.ticket.wait(effect.seconds)
        return self._sleep(effect.seconds)


def _wake(sleeper: "asyncio.Future[None]") -> None:
    if not sleeper.done():
        sleeper.set_result(None)


def _ring(loop: asyncio.AbstractEventLoop, sleeper: "asyncio.Future[None]") -> None:
    with suppress(RuntimeError):  # a loop that is closed: nobody waits
        loop.call_soon_threadsafe(_wake, sleeper)


__all__ = ["AsyncGate", "Gate", "GateRefused"]
