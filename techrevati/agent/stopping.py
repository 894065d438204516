"""When a run has done enough: seven declared conditions, and policies of one's own.

    statistics of this run's finished rounds + the current answer ──first match──▶ stopped{code, detail}

Asked once per step, after the answer.  A match lets the tool round that was just asked for finish.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import msgspec

from techrevati.agent.endings import TerminationReason, stopped

HISTORY = 20
"""Rounds whose tool names are remembered."""


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """What one run did, never what earlier runs of the thread did.

    Attributes:
        steps: Answers of the model, the current one included.
        elapsed_ms: Since the run's start.
        total_tokens: Input and output, the current answer included.
        consecutive_errors: Finished rounds up to now in which every call failed.
        called: Tools the current answer calls, in its order.
        text: The current answer's text.
        rounds: Sorted tool names per round, oldest first, the current one last; the last `HISTORY`.
    """

    steps: int = 1
    elapsed_ms: int = 0
    total_tokens: int = 0
    consecutive_errors: int = 0
    called: tuple[str, ...] = ()
    text: str = ""
    rounds: tuple[tuple[str, ...], ...] = ()


class StopPolicy(Protocol):
    """A stop condition of one's own, registered under an id."""

    @property
    def id(self) -> str: ...

    def check(self, run: RunStatistics) -> TerminationReason | None: ...


class StopCondition(msgspec.Struct, frozen=True, tag_field="type"):
    """The root of the declared ones; the wire form is tagged by `type`."""

    def check(self, run: RunStatistics) -> TerminationReason | None:
        raise NotImplementedError


class MaxRounds(StopCondition, frozen=True, tag="max_rounds"):
    """After so many answers; 0 = never."""

    rounds: int

    def check(self, run: RunStatistics) -> TerminationReason | None:
        return stopped("max_rounds_reached") if 0 < self.rounds <= run.steps else None


class Timeout(StopCondition, frozen=True, tag="timeout"):
    """After so many seconds since the run's start, looked at between steps; `deadline` cuts a step off."""

    seconds: float

    def check(self, run: RunStatistics) -> TerminationReason | None:
        return stopped("timeout_reached") if run.elapsed_ms >= self.seconds * 1000 else None


class TokenBudget(StopCondition, frozen=True, tag="token_budget"):
    """After so many tokens, in and out; 0 = never."""

    max_total: int

    def check(self, run: RunStatistics) -> TerminationReason | None:
        return stopped("token_budget_exceeded") if 0 < self.max_total <= run.total_tokens else None


class ConsecutiveErrors(StopCondition, frozen=True, tag="consecutive_errors"):
    """After so many finished rounds in a row in which every call failed; 0 = never."""

    max: int

    def check(self, run: RunStatistics) -> TerminationReason | None:
        return stopped("consecutive_errors_exceeded") if 0 < self.max <= run.consecutive_errors else None


class StopOnTool(StopCondition, frozen=True, tag="stop_on_tool"):
    """When the answer calls this tool; the call is still carried out."""

    tool_name: str

    def check(self, run: RunStatistics) -> TerminationReason | None:
        return stopped("tool_called", self.tool_name) if self.tool_name in run.called else None


class ContentMatch(StopCondition, frozen=True, tag="content_match"):
    """When the answer's text contains this, letter for letter; "" = never."""

    pattern: str

    def check(self, run: RunStatistics) -> TerminationReason | None:
        return stopped("content_matched", self.pattern) if self.pattern and self.pattern in run.text else None


class LoopDetection(StopCondition, frozen=True, tag="loop_detection"):
    """When two neighbouring rounds among the last `window` (at least 2) call the same tools."""

    window: int = 2

    def check(self, run: RunStatistics) -> TerminationReason | None:
        last = run.rounds[-max(2, self.window) :]
        same = any(one == other for one, other in pairwise(last))
        return stopped("loop_detected") if same else None


StopSpec = MaxRounds | Timeout | TokenBudget | ConsecutiveErrors | StopOnTool | ContentMatch | LoopDetection


def first_match(conditions: Iterable["StopCondition | StopPolicy"], run: RunStatistics) -> TerminationReason | None:
    """Ask in order; the first that fires decides."""
    return next((reason for condition in conditions if (reason := condition.check(run)) is not None), None)


def with_max_rounds(specs: Sequence[StopSpec], max_rounds: int) -> tuple[StopSpec, ...]:
    """Add the agent's own `max_rounds` (0 = none), unless a spec sets it explicitly."""
    if max_rounds <= 0 or any(isinstance(spec, MaxRounds) for spec in specs):
        return tuple(specs)
    return (*specs, MaxRounds(max_rounds))
