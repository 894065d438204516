"""Policy: conditions over a phase, and the actions that follow.

    PhaseContext ──rules, by priority──▶ [PolicyActionData, ...]

The engine returns actions and dispatches none.  A condition may be asynchronous: then
`evaluate_async` awaits it, inside `And` and `Or` too, and `evaluate` refuses it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Generator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from techrevati.runtime.quality_gate import QualityLevel

logger = logging.getLogger("techrevati.runtime.policy")
logger.addHandler(logging.NullHandler())


@dataclass
class PhaseContext:
    """What is known about a phase when the rules are asked."""

    phase: str = ""
    quality_level: QualityLevel | None = None
    gate_score: float = 0.0
    gate_threshold: float = 0.0
    completed_roles: set[str] = field(default_factory=set)
    failed_roles: set[str] = field(default_factory=set)
    all_roles: set[str] = field(default_factory=set)
    elapsed_seconds: float = 0.0
    retry_exhausted_scenarios: set[str] = field(default_factory=set)
    phase_completed: bool = False
    total_cost_usd: float = 0.0


class Condition(Protocol):
    """Anything with `matches`; a subclass of `PolicyCondition` or not."""

    def matches(self, ctx: PhaseContext) -> bool | Awaitable[bool]: ...


class PolicyCondition:
    """Base of the conditions here; subclass it, or bring anything that has `matches`."""

    def matches(self, ctx: PhaseContext) -> bool | Awaitable[bool]:
        """Whether the rule applies; may be a coroutine for `evaluate_async`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement matches(ctx)")


class _Combined(PolicyCondition):
    """Conditions asked in order until one gives the deciding answer."""

    _decides: bool

    def __init__(self, conditions: list[Any]) -> None:
        self.conditions = conditions

    def matches(self, ctx: PhaseContext) -> bool | Awaitable[bool]:
        """The combined answer; an awaitable as soon as one condition gives an awaitable."""
        for index, condition in enumerate(self.conditions):
            answer = condition.matches(ctx)
            if inspect.isawaitable(answer):
                return _Undecided(answer, self.conditions[index + 1 :], ctx, self._decides)
            if bool(answer) is self._decides:
                return self._decides
        return not self._decides

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.conditions!r})"


class _Undecided:
    """A combined answer that waits for one of its parts; `close` it if nobody is going to."""

    __slots__ = ("_ctx", "_decides", "_pending", "_rest")

    def __init__(self, pending: Awaitable[bool], rest: list[Any], ctx: PhaseContext, decides: bool) -> None:
        self._pending, self._rest, self._ctx, self._decides = pending, rest, ctx, decides

    def __await__(self) -> Generator[Any, None, bool]:
        return self._answer().__await__()

    def close(self) -> None:
        _close(self._pending)

    async def _answer(self) -> bool:
        if bool(await self._pending) is self._decides:
            return self._decides
        for condition in self._rest:
            answer = condition.matches(self._ctx)
            if inspect.isawaitable(answer):
                answer = await answer
            if bool(answer) is self._decides:
                return self._decides
        return not self._decides


def _close(unwanted: Any) -> None:
    """Say that an awaitable will not be awaited, so that nobody is warned about it."""
    if hasattr(unwanted, "close"):
        unwanted.close()


class And(_Combined):
    """All of them; none at all is true."""

    _decides = False


class Or(_Combined):
    """Any of them; none at all is false."""

    _decides = True


class QualityAt(PolicyCondition):
    """Quality is known, and at least `level`."""

    def __init__(self, level: QualityLevel) -> None:
        self.level = level

    def matches(self, ctx: PhaseContext) -> bool:
        return ctx.quality_level is not None and ctx.quality_level >= self.level

    def __repr__(self) -> str:
        return f"QualityAt({self.level.name})"


class PhaseCompleted(PolicyCondition):
    """The phase is done."""

    def matches(self, ctx: PhaseContext) -> bool:
        return ctx.phase_completed

    def __repr__(self) -> str:
        return "PhaseCompleted()"


class AgentFailed(PolicyCondition):
    """This role failed; without a role, any did."""

    def __init__(self, role: str | None = None) -> None:
        self.role = role

    def matches(self, ctx: PhaseContext) -> bool:
        return self.role in ctx.failed_roles if self.role else bool(ctx.failed_roles)

    def __repr__(self) -> str:
        return f"AgentFailed(role={self.role!r})"


class GateBelow(PolicyCondition):
    """The gate score is under `threshold`."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def matches(self, ctx: PhaseContext) -> bool:
        return ctx.gate_score < self.threshold

    def __repr__(self) -> str:
        return f"GateBelow({self.threshold})"


class RetryExhausted(PolicyCondition):
    """Recovery of this scenario was escalated; without one, of any."""

    def __init__(self, scenario: str | None = None) -> None:
        self.scenario = scenario

    def matches(self, ctx: PhaseContext) -> bool:
        exhausted = ctx.retry_exhausted_scenarios
        return self.scenario in exhausted if self.scenario else bool(exhausted)

    def __repr__(self) -> str:
        return f"RetryExhausted(scenario={self.scenario!r})"


class TimedOut(PolicyCondition):
    """The phase has run longer than `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def matches(self, ctx: PhaseContext) -> bool:
        return ctx.elapsed_seconds > self.seconds

    def __repr__(self) -> str:
        return f"TimedOut({self.seconds}s)"


class AllAgentsComplete(PolicyCondition):
    """Every role is completed or failed; so is an empty phase."""

    def matches(self, ctx: PhaseContext) -> bool:
        return ctx.completed_roles | ctx.failed_roles == ctx.all_roles

    def __repr__(self) -> str:
        return "AllAgentsComplete()"


class CostExceeded(PolicyCondition):
    """The phase cost more than `budget_usd`."""

    def __init__(self, budget_usd: float) -> None:
        self.budget_usd = budget_usd

    def matches(self, ctx: PhaseContext) -> bool:
        return ctx.total_cost_usd > self.budget_usd

    def __repr__(self) -> str:
        return f"CostExceeded(${self.budget_usd})"


class PolicyAction(str, Enum):  # noqa: UP042 - callers rely on plain-Enum str()
    """What a caller may be told to do."""

    ADVANCE_PHASE = "advance_phase"
    RETRY_AGENT = "retry_agent"
    RETRY_PHASE = "retry_phase"
    RECOVER_ONCE = "recover_once"
    ESCALATE = "escalate"
    STORE_GATE_FEEDBACK = "store_gate_feedback"
    GENERATE_HANDOFF = "generate_handoff"
    NOTIFY = "notify"
    ABORT_PHASE = "abort_phase"


@dataclass(frozen=True)
class PolicyActionData:
    """An action and its parameters."""

    action: PolicyAction
    params: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping; ``params`` only when there are any."""
        record: dict[str, Any] = {"action": self.action.value}
        if self.params:
            record["params"] = self.params
        return record


@dataclass(frozen=True)
class PolicyRule:
    """When `condition` matches, `actions` follow; a lower priority goes first."""

    name: str
    condition: Condition
    actions: list[PolicyActionData]
    priority: int = 50


class PolicyEngine:
    """Rules sorted once by priority; equal ones keep the order they were given in."""

    def __init__(self, rules: list[PolicyRule]) -> None:
        self._rules = sorted(rules, key=lambda rule: rule.priority)

    @property
    def rules(self) -> list[PolicyRule]:
        """The rules in the order they are asked."""
        return list(self._rules)

    def evaluate(self, ctx: PhaseContext) -> list[PolicyActionData]:
        """The actions of every rule that matches, in order.

        Raises:
            TypeError: a condition is asynchronous; its coroutine would look like "yes".
        """
        actions: list[PolicyActionData] = []
        for rule in self._rules:
            answer = rule.condition.matches(ctx)
            if inspect.isawaitable(answer):
                _close(answer)
                raise TypeError(f"rule '{rule.name}': condition {rule.condition!r} is asynchronous, use evaluate_async")
            if answer:
                actions.extend(rule.actions)
        return actions

    async def evaluate_async(self, ctx: PhaseContext) -> list[PolicyActionData]:
        """`evaluate`, awaiting the conditions that need it."""
        actions: list[PolicyActionData] = []
        for rule in self._rules:
            answer = rule.condition.matches(ctx)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                actions.extend(rule.actions)
        return actions
