"""The bookkeeping of one turn, for sync and async sessions alike.  It does no waiting itself.

    open ─▶ replayed │ count ─▶ begin ─▶ call ─▶ returned ─▶ keep ─▶ settle
              any error: the claim is given back; an error of the call is classified

Used as a context manager; the shells in the session modules wait and call in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from techrevati.runtime._errors import MaxIterationsExceededError, TurnTimeoutError
from techrevati.runtime._journal import Entry
from techrevati.runtime._log import logger
from techrevati.runtime._session import SessionCore
from techrevati.runtime._usage import ZERO_USAGE, UsageSnapshot
from techrevati.runtime.agent_events import AgentEvent
from techrevati.runtime.circuit_breaker import CircuitOpenError
from techrevati.runtime.hooks import ModelCall
from techrevati.runtime.retry_policy import attempt_recovery, classify_exception
from techrevati.runtime.sinks import NoopUsageSink
from techrevati.runtime.usage_tracking import BudgetExceededError


class Turn:
    """One turn of one session."""

    __slots__ = ("_calling", "_estimate", "_save_error", "_session", "_usage", "entry", "model", "result")

    def __init__(
        self,
        session: SessionCore,
        model: str,
        usage: UsageSnapshot | None,
        estimate: Callable[[Any], UsageSnapshot] | None,
        key: str | None,
    ) -> None:
        self._session, self.model, self._usage, self._estimate = session, model, usage, estimate
        self._calling = False
        self._save_error: Exception | None = None
        self.entry: Entry | None = None
        if session.saver is not None:
            journal = session._journal_of_thread()
            if journal is not None:
                self.entry = journal.entry(key)

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if self._calling and isinstance(error, Exception):
            self._recover(error)
        if self.entry is not None:
            self.entry.abandon()

    def replayed(self) -> tuple[Any, UsageSnapshot] | None:
        """The recorded pair if the turn was made before; it counts as an iteration, nothing else."""
        if self.entry is None or self.entry.recorded is None:
            return None
        self.count()
        return self.entry.recorded.result, self.entry.recorded.usage

    def count(self) -> None:
        """Take one of the session's turns.

        Raises:
            MaxIterationsExceededError: there is none left.
        """
        session = self._session
        if session._iteration_count >= session.max_iterations:
            raise MaxIterationsExceededError(session.max_iterations)
        session._iteration_count += 1

    def begin(self) -> None:
        """From here on, until `returned`, an error is the call's."""
        self._calling = True

    def returned(self, result: Any) -> UsageSnapshot:
        """The call came back: measure what it used."""
        self._calling = False
        self.result = result
        if self._usage is None:
            try:
                self._usage = self._measured(result)
            except BaseException:
                if not self._session.extras.shapes_turns:  # else nobody has checked it yet
                    self.keep()  # what it cost is unknown, but it is paid for
                raise
        return self._usage

    def keep(self) -> None:
        """Record the result before anything can stop the turn: it is paid for.

        A saver that fails speaks up at the end, when the turn has been accounted for.
        """
        if self.entry is not None:
            try:
                self.entry.store(self.result, self._usage or ZERO_USAGE, "completed", self.model)
            except Exception as error:  # noqa: BLE001 - raised by `settle`
                self._save_error = error

    def settle(self) -> tuple[Any, UsageSnapshot]:
        """Account for the turn, and stop if the session may not go on.

        Raises:
            BudgetExceededError: over budget, and the budget is enforced.
            UsageLimitExceededError: over a limit.
        """
        usage = self._usage or ZERO_USAGE
        session = self._session
        self.account()
        if session.budget_usd is not None:
            cost = session.tracker.total_cost()
            if cost > session.budget_usd:
                session._over_budget(session.budget_usd, cost)
                if session.enforce_budget:
                    raise BudgetExceededError(session.budget_usd, cost)
        if session.usage_limits is not None:
            session.tracker.check_limits(session.usage_limits)
        if self._save_error is not None:
            raise self._save_error
        if self.entry is not None and self.entry.recorded is not None:
            return self.entry.recorded.result, self.entry.recorded.usage
        return self.result, usage

    def left_early(self, chunks: list[Any]) -> None:
        """The consumer of a stream went away: account for what it got, keep nothing."""
        self._calling = False
        if chunks:
            if self._usage is None:
                self._usage = self._measured(chunks)
            self.account()

    def account(self) -> None:
        """Tell tracker and sink what the turn used, under the name of its model."""
        model = self.model
        if not model:
            return
        usage, session = self._usage or ZERO_USAGE, self._session
        session.tracker.record_turn(model, usage)
        sink = session.usage_sink
        if type(sink) is NoopUsageSink:
            return
        try:
            sink.record(model, usage, session.tracker.cost_for_turn(model, usage))
        except Exception:  # noqa: BLE001 - sinks observe, they must not harm the turn
            logger.exception("usage_sink.record raised; the record is dropped: %s", model)

    def request(self, timeout: float | None, call: Callable[[], Any]) -> ModelCall:
        """The turn as hooks see it."""
        return ModelCall(self._session.role, self._session.phase, self.model, timeout, call)

    def checked(self, result: Any) -> Any:
        """The result as the session's output spec has it.

        Raises:
            OutputRejectedError: it is not what the spec asks for.
        """
        spec = self._session.extras.output
        return result if spec is None else spec.parse(result)

    def _measured(self, result: Any) -> UsageSnapshot:
        return ZERO_USAGE if self._estimate is None else self._estimate(result)

    def _recover(self, error: Exception) -> None:
        if isinstance(error, CircuitOpenError | TurnTimeoutError):
            return
        session = self._session
        scenario = classify_exception(error)
        outcome = attempt_recovery(scenario, session.recovery).outcome
        detail = f"{scenario.value}: {outcome}"
        session._emit(AgentEvent.recovery_attempted(session.role, session.phase, detail))
        session._log(logging.INFO, "recovery_attempted", scenario=scenario.value, outcome=outcome)
