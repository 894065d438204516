"""A turn that streams: chunks pass through as they come, the books are closed at the end.

admit ─▶ chunk ─▶ chunk ─▶ … ─▶ end: breaker, usage, checkpoint, budget
                    └─ left early: permit back, chunks so far accounted
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Generic, Self, TypeAlias, TypeVar

from techrevati.runtime._deadline import await_within
from techrevati.runtime._errors import TurnTimeoutError
from techrevati.runtime._turn import Turn
from techrevati.runtime._usage import UsageSnapshot
from techrevati.runtime.circuit_breaker import AsyncCircuitBreaker, CircuitOpenError
from techrevati.runtime.hooks import Hook, aenter_model
from techrevati.runtime.rate_limit import AsyncRateLimiter

T = TypeVar("T")

# Returns the stream, or (as most clients do) an awaitable of it.
StreamFactory: TypeAlias = Callable[[], AsyncIterable[T] | Awaitable[AsyncIterable[T]]]


class TurnStream(Generic[T]):
    """The chunks of one turn, to be iterated once.

    Leave it early through `aclose` or ``async with``.  `chunks` are those seen so far, `usage` is
    known at the end.
    """

    def __init__(
        self,
        factory: StreamFactory[T],
        turn: Turn,
        timeout: float | None,
        *,
        breaker: AsyncCircuitBreaker | None,
        limiter: AsyncRateLimiter | None,
        hooks: tuple[Hook, ...],
    ) -> None:
        self.chunks: list[T] = []
        self.usage: UsageSnapshot | None = None
        self._factory, self._turn, self._timeout = factory, turn, timeout
        self._breaker, self._limiter, self._hooks = breaker, limiter, hooks
        self._running = self._run()

    def __aiter__(self) -> AsyncIterator[T]:
        return self._running

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the turn here.  After the last chunk this does nothing."""
        await self._running.aclose()

    async def _run(self) -> AsyncGenerator[T, None]:
        turn, limiter = self._turn, self._limiter
        with turn:
            if turn.entry is not None:
                await turn.entry.await_open()
            replayed = turn.replayed()
            if replayed is not None:
                stored, self.usage = replayed
                for chunk in stored:
                    self.chunks.append(chunk)
                    yield chunk
                return
            if limiter is not None:
                await limiter.acquire_pre_call()
            turn.count()
            request = await aenter_model(self._hooks, turn.request(self._timeout, self._factory))
            turn.model = request.model
            turn.begin()
            async with aclosing(_admitted(self._breaker, request.call, request.timeout)) as source:
                try:
                    async for chunk in source:
                        self.chunks.append(chunk)
                        yield chunk
                except (GeneratorExit, asyncio.CancelledError):
                    turn.left_early(self.chunks)
                    raise
            used = turn.returned(self.chunks)
            turn.keep()
            if limiter is not None:
                await limiter.acquire_usage(input_tokens=used.input_tokens, output_tokens=used.output_tokens)
            _, self.usage = turn.settle()


async def _admitted(
    breaker: AsyncCircuitBreaker | None, factory: StreamFactory[T], timeout: float | None
) -> AsyncGenerator[T, None]:
    """The stream behind the breaker, which learns from how it ends."""
    permit = None if breaker is None else await _obtain(breaker)
    try:
        async with aclosing(_in_time(factory, timeout)) as source:
            async for chunk in source:
                yield chunk
    except BaseException as error:
        await _settle(breaker, permit, error)
        raise
    await _settle(breaker, permit, None)


async def _in_time(factory: StreamFactory[T], timeout: float | None) -> AsyncGenerator[T, None]:
    """The stream as it comes; each wait for a chunk ends at the deadline of the whole."""
    now = asyncio.get_running_loop().time
    deadline = None if timeout is None else now() + timeout

    async def in_time(wait: Callable[[], Awaitable[Any]]) -> Any:
        if deadline is None:
            return await wait()
        try:
            return await await_within(wait, deadline - now())
        except TurnTimeoutError as error:
            raise TurnTimeoutError(timeout or 0.0) from error  # the whole, not what was left of it

    source: Any = None
    try:
        opened = factory()
        source = aiter(await in_time(lambda: opened) if inspect.isawaitable(opened) else opened)
        while True:
            try:
                chunk = await in_time(source.__anext__)
            except StopAsyncIteration:
                return
            yield chunk
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


async def _obtain(breaker: Any) -> Any:
    held = getattr(breaker, "permit", None)
    if held is not None:  # shared with other processes: got and given back by a round trip each
        permit = held()
        await permit.__aenter__()
        return permit
    admit = getattr(breaker, "_admit", None)
    if admit is not None:
        return admit()
    if await breaker.is_open():  # a breaker of another make: its public face must do
        raise CircuitOpenError(breaker.name)
    return None


async def _settle(breaker: Any, permit: Any, error: BaseException | None) -> None:
    if breaker is None:
        return
    if isinstance(error, TurnTimeoutError):
        error = asyncio.CancelledError()  # our deadline says nothing about the other side
    if hasattr(permit, "__aexit__"):
        await permit.__aexit__(None if error is None else type(error), error, None)
    elif permit is not None:
        breaker._settle(permit, error)
    elif error is None:
        await breaker.record_success()
    elif isinstance(error, Exception):
        await breaker.record_failure()
