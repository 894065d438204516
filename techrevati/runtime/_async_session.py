"""The session of a task: its methods await."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from techrevati.runtime._deadline import await_within
from techrevati.runtime._errors import PermissionDeniedError
from techrevati.runtime._session import SessionCore
from techrevati.runtime._stream import StreamFactory, TurnStream
from techrevati.runtime._turn import Turn
from techrevati.runtime._usage import ZERO_USAGE, UsageSnapshot
from techrevati.runtime.agent_lifecycle import AgentStatus
from techrevati.runtime.circuit_breaker import AsyncCircuitBreaker
from techrevati.runtime.guardrails import AnyGuardrail, arun_post_checks, arun_pre_checks
from techrevati.runtime.hooks import ToolCall, aenter_model, aenter_tool, aleave_model, aleave_tool
from techrevati.runtime.rate_limit import AsyncRateLimiter

T = TypeVar("T")


@dataclass
class AsyncOrchestrationSession(SessionCore):
    """One agent's open scope, for coroutines."""

    circuit_breaker: AsyncCircuitBreaker | None = None
    async_rate_limiter: AsyncRateLimiter | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._awaited_input: asyncio.Future[str] | None = None

    async def arun_turn(
        self,
        coro_factory: Callable[[], Awaitable[T]],
        model: str = "",
        usage: UsageSnapshot | None = None,
        estimate_usage: Callable[[T], UsageSnapshot] | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[T, UsageSnapshot]:
        """`OrchestrationSession.run_turn`, awaiting ``coro_factory()``; a deadline cancels it."""
        with Turn(self, model, usage, estimate_usage, idempotency_key) as turn:
            if idempotency_key and turn.entry is not None:
                await turn.entry.await_open()
                replayed = turn.replayed()
                if replayed is not None:
                    return replayed
            if self.async_rate_limiter is not None:
                await self.async_rate_limiter.acquire_pre_call()
            turn.count()
            if self.extras.shapes_turns:
                used = await self._shaped(turn, coro_factory, timeout)
            else:
                turn.begin()
                used = turn.returned(await self._call(coro_factory, timeout))
            turn.keep()
            if self.async_rate_limiter is not None:
                await self.async_rate_limiter.acquire_usage(
                    input_tokens=used.input_tokens, output_tokens=used.output_tokens
                )
            return turn.settle()

    def arun_turn_stream(
        self,
        stream_factory: StreamFactory[T],
        model: str = "",
        usage: UsageSnapshot | None = None,
        estimate_usage: Callable[[list[T]], UsageSnapshot] | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> TurnStream[T]:
        """One turn whose result comes in chunks: iterate the stream, best inside ``async with``.

        `stream_factory` returns the chunks' async iterable, or an awaitable of it.
        Breaker, usage, budget and checkpoint are settled when the stream ends; the result kept is
        the list of chunks, and a replay yields it again.  Left early, the chunks seen are
        accounted for, nothing is kept, and the breaker learns nothing.  `timeout` is the time
        from the first chunk asked for to the end.  Of hooks, `before_model` applies; `after_model`
        and the output spec do not, as the chunks are gone by then.
        """
        return TurnStream(
            stream_factory,
            Turn(self, model, usage, estimate_usage, idempotency_key),
            timeout,
            breaker=self.circuit_breaker,
            limiter=self.async_rate_limiter,
            hooks=self.extras.hooks,
        )

    async def arun_tool(self, tool_name: str, coro_factory: Callable[[], Awaitable[T]]) -> T:
        """`OrchestrationSession.run_tool`, awaiting the tool, and guardrails that need it."""
        hooks = self.extras.hooks
        call = await aenter_tool(hooks, ToolCall(self.role, self.phase, tool_name, coro_factory))
        outcome = self.authorize(call.tool)
        if not outcome.allowed:
            raise PermissionDeniedError(outcome)
        guardrails: list[AnyGuardrail] = [*self.guardrails, *self.extras.async_guardrails]
        await arun_pre_checks(guardrails, role=self.role, tool=call.tool)
        result: T = await aleave_tool(hooks, call, await call.call())
        await arun_post_checks(guardrails, result, role=self.role, tool=call.tool)
        return result

    async def astep(self, key: str, coro_factory: Callable[[], Awaitable[T]]) -> T:
        """`OrchestrationSession.step`, awaiting the side effect."""
        journal = self._journal_of_thread()
        if journal is None:
            return await coro_factory()
        entry = journal.entry(f"step:{key}")
        await entry.await_open()
        if entry.recorded is None:
            try:
                result = await coro_factory()
                entry.store(result, ZERO_USAGE, "step", "")
            except BaseException:
                entry.abandon()
                raise
            if entry.recorded is None:
                return result
        recorded: T = entry.recorded.result
        return recorded

    async def arun_parallel_tools(
        self, coro_factories: Sequence[Callable[[], Awaitable[Any]]], *, timeout: float | None = None
    ) -> list[Any]:
        """Run all at once; results in the order given.  If one fails the others are cancelled.

        Their names are not known here, so nothing is authorized or guarded;
        `arun_parallel_named_tools` does that.

        Raises:
            ExceptionGroup: what failed.
            TurnTimeoutError: `timeout` seconds passed for all of them together.
        """
        if not coro_factories:
            return []
        together = partial(_gather, coro_factories)
        return await (together() if timeout is None else await_within(together, timeout))

    async def arun_parallel_named_tools(
        self,
        tools: Sequence[tuple[str, Callable[[], Awaitable[Any]]]],
        *,
        timeout: float | None = None,
    ) -> list[Any]:
        """`arun_parallel_tools` for (name, factory) pairs, each through `arun_tool`.

        Every name is authorized before any of them starts.

        Raises:
            PermissionDeniedError: one may not be used; none was started.
            ExceptionGroup: what failed, guardrails included.
            TurnTimeoutError: `timeout` seconds passed for all of them together.
        """
        for name, _ in tools:
            outcome = self.authorize(name)
            if not outcome.allowed:
                raise PermissionDeniedError(outcome)
        calls = [partial(self.arun_tool, name, factory) for name, factory in tools]
        return await self.arun_parallel_tools(calls, timeout=timeout)

    async def pause_for_input(self, prompt: str) -> str:
        """Wait until somebody calls `provide_input` on this session; returns what they gave.

        Raises:
            RuntimeError: the session has ended, or waits already.
        """
        if self.worker.is_terminal:
            raise RuntimeError(f"cannot pause a terminal session: worker is {self.worker.status.value}")
        if self._awaited_input is not None:
            raise RuntimeError("pause_for_input: an earlier prompt is still pending, answer it first")
        awaited = asyncio.get_running_loop().create_future()
        self._move(AgentStatus.WAITING_FOR_INPUT, prompt)
        self._awaited_input = awaited
        detail = "input abandoned"
        try:
            value: str = await awaited
            detail = "input received"
        finally:
            self._awaited_input = None
            if not self.worker.is_terminal:
                self._move(AgentStatus.RUNNING, detail)
        return value

    def provide_input(self, value: str) -> None:
        """Answer the waiting `pause_for_input`; of several answers the first counts.

        May be called from another thread.

        Raises:
            RuntimeError: nobody waits.
        """
        awaited = self._awaited_input
        if awaited is None:
            raise RuntimeError("no pause_for_input in flight: nothing to provide input to")
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is awaited.get_loop():
            _answer(awaited, value)
        else:
            awaited.get_loop().call_soon_threadsafe(_answer, awaited, value)

    def _move(self, status: AgentStatus, detail: str) -> None:
        self.registry.transition(self.worker.worker_id, status, detail)

    async def _call(self, factory: Callable[[], Awaitable[T]], timeout: float | None) -> T:
        breaker = self.circuit_breaker
        if timeout is None:
            return await (factory() if breaker is None else breaker.call(factory))
        return await await_within(factory if breaker is None else partial(breaker.call, factory), timeout)

    async def _shaped(self, turn: Turn, factory: Callable[[], Awaitable[Any]], timeout: float | None) -> UsageSnapshot:
        hooks = self.extras.hooks
        request = await aenter_model(hooks, turn.request(timeout, factory))
        turn.model = request.model
        turn.begin()
        used = turn.returned(await self._call(request.call, request.timeout))
        try:
            turn.result = turn.checked(await aleave_model(hooks, request, turn.result))
        except BaseException:
            turn.account()  # refused, but paid for
            raise
        return used


def _answer(awaited: asyncio.Future[str], value: str) -> None:
    if not awaited.done():
        awaited.set_result(value)


async def _gather(factories: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
    async def run(factory: Callable[[], Awaitable[Any]]) -> Any:
        return await factory()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(factory)) for factory in factories]
    return [task.result() for task in tasks]
