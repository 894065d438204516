"""The session of a thread: its methods block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from techrevati.runtime._deadline import DeadlineCaller
from techrevati.runtime._errors import PermissionDeniedError
from techrevati.runtime._session import SessionCore
from techrevati.runtime._turn import Turn
from techrevati.runtime._usage import ZERO_USAGE, UsageSnapshot
from techrevati.runtime.circuit_breaker import CircuitBreaker
from techrevati.runtime.guardrails import run_post_checks, run_pre_checks
from techrevati.runtime.hooks import ModelCall, ToolCall, enter_model, enter_tool, leave_model, leave_tool
from techrevati.runtime.rate_limit import RateLimiter

T = TypeVar("T")


@dataclass
class OrchestrationSession(SessionCore):
    """One agent's open scope, for plain functions."""

    circuit_breaker: CircuitBreaker | None = None
    rate_limiter: RateLimiter | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._deadlines = DeadlineCaller()

    def run_turn(
        self,
        fn: Callable[[], T],
        model: str = "",
        usage: UsageSnapshot | None = None,
        estimate_usage: Callable[[T], UsageSnapshot] | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[T, UsageSnapshot]:
        """Make one model call with everything around it; returns its result and what it used.

        With a thread and a saver the result is recorded, and a turn whose `idempotency_key` is
        recorded already returns that (in its JSON form) instead of calling `fn`.

        Raises:
            MaxIterationsExceededError: no turns left; `fn` was not called.
            CircuitOpenError: the breaker is open; `fn` was not called.
            TurnTimeoutError: `timeout` seconds passed; `fn` runs on in its thread.
            BudgetExceededError, UsageLimitExceededError: stopped after the call; it is recorded.
        """
        with Turn(self, model, usage, estimate_usage, idempotency_key) as turn:
            if idempotency_key and turn.entry is not None:
                turn.entry.wait()
                replayed = turn.replayed()
                if replayed is not None:
                    return replayed
            if self.rate_limiter is not None:
                self.rate_limiter.acquire_pre_call()
            turn.count()
            if self.extras.shapes_turns:
                used = self._shaped(turn, fn, timeout)
            else:
                turn.begin()
                used = turn.returned(self._call(fn, timeout))
            turn.keep()
            if self.rate_limiter is not None:
                self.rate_limiter.acquire_usage(input_tokens=used.input_tokens, output_tokens=used.output_tokens)
            return turn.settle()

    def run_tool(self, tool_name: str, fn: Callable[[], T]) -> T:
        """Run a tool if permissions and guardrails allow it.

        Raises:
            PermissionDeniedError: the role may not; `fn` was not called.
            GuardrailViolatedError: a guardrail refused the tool or its result.
        """
        hooks = self.extras.hooks
        call = enter_tool(hooks, ToolCall(self.role, self.phase, tool_name, fn))
        outcome = self.authorize(call.tool)
        if not outcome.allowed:
            raise PermissionDeniedError(outcome)
        run_pre_checks(self.guardrails, role=self.role, tool=call.tool)
        result: T = leave_tool(hooks, call, call.call())
        run_post_checks(self.guardrails, result, role=self.role, tool=call.tool)
        return result

    def step(self, key: str, fn: Callable[[], T]) -> T:
        """Do a side effect once per thread: a step recorded under `key` is not done again.

        Returns what was recorded (in its JSON form) if it was.  Without a thread and a saver it
        is simply done.  Not a turn: nothing is counted, limited or accounted.
        """
        journal = self._journal_of_thread()
        if journal is None:
            return fn()
        entry = journal.entry(f"step:{key}")
        entry.wait()
        if entry.recorded is None:
            try:
                result = fn()
                entry.store(result, ZERO_USAGE, "step", "")
            except BaseException:
                entry.abandon()
                raise
            if entry.recorded is None:
                return result
        recorded: T = entry.recorded.result
        return recorded

    def _call(self, fn: Callable[[], T], timeout: float | None) -> T:
        breaker = self.circuit_breaker
        if timeout is None:
            return fn() if breaker is None else breaker.call(fn)
        return self._deadlines.call(fn if breaker is None else partial(breaker.call, fn), timeout)

    def _shaped(self, turn: Turn, fn: Callable[[], Any], timeout: float | None) -> UsageSnapshot:
        hooks = self.extras.hooks
        request: ModelCall = enter_model(hooks, turn.request(timeout, fn))
        turn.model = request.model
        turn.begin()
        used = turn.returned(self._call(request.call, request.timeout))
        try:
            turn.result = turn.checked(leave_model(hooks, request, turn.result))
        except BaseException:
            turn.account()  # refused, but paid for
            raise
        return used

    def _leave(self, error: BaseException | None) -> None:
        self._deadlines.close()
        super()._leave(error)
