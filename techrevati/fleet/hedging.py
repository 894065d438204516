"""One call raced by two models: the second starts when the first stays silent, the first sign wins.

    first ──silent for its p95──▶ second starts
    whoever gives a sign first is heard, the other is cancelled, and counts as what it may have cost

Source: Dean and Barroso, "The tail at scale", CACM 56(2), 2013 ("hedged requests").
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from techrevati.fleet.calling import Caller, Refused
from techrevati.fleet.estimates import estimate
from techrevati.fleet.failures import classify
from techrevati.fleet.latencies import Latencies
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.models import ModelReply, ModelRequest

WIND_UP = 5.0
"""Seconds that a cancelled call is waited for, so that it settles what it holds."""


@dataclass(frozen=True, slots=True)
class Hedge:
    """When a second model is asked: after the `percentile` of the first one's latencies to its first sign.

    `otherwise` (s) holds while fewer than `samples` are known; None: no second until then.
    """

    percentile: float = 0.95
    samples: int = 20
    at_least: float = 0.05
    otherwise: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 1:
            raise ValueError(f"percentile={self.percentile} is refused: give a fraction above 0, such as 0.95")

    def delay(self, latencies: Latencies) -> float | None:
        """Give the silence (s) after which a second is asked, or None for never."""
        known = latencies.percentile(self.percentile) if len(latencies) >= self.samples else None
        wait = self.otherwise if known is None else known
        return None if wait is None else max(self.at_least, wait)


@dataclass(slots=True)
class Contender:
    """One model in a race."""

    name: str
    begun: float
    task: "asyncio.Task[ModelReply]"
    ended: bool = False


class Race:
    """One call, made by one model or by two.

    Attributes:
        spoken: text was delivered.
        lost: who did not answer, and what it cost: {"model", "outcome", "failure", "seconds", "cost_micros"}.
        failed: those of them that another try need not ask.
    """

    def __init__(
        self,
        request: ModelRequest,
        caller: Caller,
        latencies: Mapping[str, Latencies],
        timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request, self._caller, self._latencies = request, caller, latencies
        self._timeout, self._clock = timeout, clock
        self._contenders: list[Contender] = []
        self._leader: str | None = None
        self._changed = asyncio.Event()  # one gave its first sign, or ended
        self.spoken = False
        self.lost: list[dict[str, Any]] = []
        self.failed: list[str] = []

    async def run(self, first: str, hedge: Hedge | None, second: Callable[[], str | None]) -> ModelReply:
        """Let `first` answer and, if it stays silent too long, `second()` as well.

        Raises:
            Exception: what the last of them raised.
        """
        error: Exception | None = None
        try:
            self._start(first)
            delay = hedge.delay(self._latencies[first]) if hedge is not None else None
            if delay is not None and await self._silent(delay) and (other := second()) is not None:
                self._start(other)
            while running := [one for one in self._contenders if not one.ended]:
                await self._changed.wait()
                self._changed.clear()
                for one in running:
                    failed = _error_of(one) if one.task.done() else None
                    if failed is not None:
                        if error is None or not isinstance(failed, Refused):
                            error = failed
                        self._note(one, "refused" if isinstance(failed, Refused) else "failed", failed)
                        self.failed.append(one.name)
                    elif self._leader not in (None, one.name):
                        await self._stop(one)
                    elif one.task.done():
                        return one.task.result()
        finally:
            for one in self._contenders:
                if not one.task.done():
                    await self._stop(one)
        assert error is not None
        raise error

    def _start(self, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._call(name))
        task.add_done_callback(lambda _: self._changed.set())
        self._contenders.append(Contender(name, self._clock(), task))

    async def _call(self, name: str) -> ModelReply:
        begun = self._clock()

        def heard() -> bool:
            """Whether this one is heard: it is, or with its first sign becomes, the leader."""
            if self._leader is None:
                self._leader = name
                self._latencies[name].add(self._clock() - begun)
                self._changed.set()
            return self._leader == name

        request = replace(self._request, options={**self._request.options, **self._ears(heard)})
        async with asyncio.timeout(self._timeout):
            reply = await self._caller.call(name, request)
        heard()  # a client that does not stream gives its first sign here
        return reply

    def _ears(self, heard: Callable[[], bool]) -> dict[str, Any]:
        on_delta, on_event = self._request.options.get("on_delta"), self._request.options.get("on_event")

        def delta(text: str) -> None:
            if heard():
                self.spoken = True
                if on_delta is not None:
                    on_delta(text)

        def event(kind: str, data: dict[str, Any]) -> None:
            if heard() and on_event is not None:
                on_event(kind, data)

        return {"on_delta": delta, "on_event": event}

    async def _silent(self, delay: float) -> bool:
        try:
            async with asyncio.timeout(delay):
                await self._changed.wait()
        except TimeoutError:
            return True
        return False

    async def _stop(self, one: Contender) -> None:
        """End one that is not heard; it has time to settle what it holds."""
        one.task.cancel()
        await asyncio.wait({one.task}, timeout=WIND_UP)
        self._note(one, "lost", None)

    def _note(self, one: Contender, outcome: str, error: Exception | None) -> None:
        one.ended = True
        self.lost.append(
            {
                "model": one.name,
                "outcome": outcome,
                "failure": "" if error is None or outcome == "refused" else classify(error),
                "seconds": round(self._clock() - one.begun, 3),
                "cost_micros": self._cost(one, outcome, error),
            }
        )

    def _cost(self, one: Contender, outcome: str, error: Exception | None) -> int:
        """Give what one that did not answer may have cost: nothing if it was not made, else what was estimated."""
        if outcome == "refused" or (isinstance(error, ModelFailed) and not error.made):
            return 0
        if outcome == "lost" and one.task.done() and _error_of(one) is None:
            return one.task.result().cost_micros
        return estimate(one.name, self._request).cost_micros


def _error_of(one: Contender) -> Exception | None:
    if one.task.cancelled():
        return ModelFailed(one.name, "dependency_failed", "its client gave the call up")
    error = one.task.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return error
