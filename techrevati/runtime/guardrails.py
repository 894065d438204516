"""Guardrails: checks before and after a tool runs; the first refusal stops it.

    check_pre ──▶ tool ──value──▶ check_post ──▶ caller

In async sessions a check may be a coroutine; a sync session refuses one by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

GuardrailStage = Literal["pre", "post"]


@dataclass(frozen=True)
class GuardrailOutcome:
    """May it go on, and if not, why not."""

    allowed: bool
    reason: str | None = None


@runtime_checkable
class Guardrail(Protocol):
    """A named check around tools."""

    name: str

    def check_pre(self, *, role: str, tool: str) -> GuardrailOutcome: ...

    def check_post(self, value: Any, *, role: str, tool: str) -> GuardrailOutcome: ...


class AsyncGuardrail(Protocol):
    """The same, for checks that wait; only async sessions run it.  The two kinds may be mixed."""

    name: str

    async def check_pre(self, *, role: str, tool: str) -> GuardrailOutcome: ...

    async def check_post(self, value: Any, *, role: str, tool: str) -> GuardrailOutcome: ...


AnyGuardrail = Guardrail | AsyncGuardrail


@dataclass(frozen=True)
class AllowAllGuardrail(Guardrail):
    """Lets everything pass."""

    name: str = "allow_all"

    def check_pre(self, *, role: str, tool: str) -> GuardrailOutcome:
        """Allowed."""
        return GuardrailOutcome(True)

    def check_post(self, value: Any, *, role: str, tool: str) -> GuardrailOutcome:
        """Allowed."""
        return GuardrailOutcome(True)


class GuardrailViolatedError(Exception):
    """A guardrail refused a tool, or its result."""

    def __init__(
        self, outcome: GuardrailOutcome, *, guardrail: str, role: str, tool: str, stage: GuardrailStage
    ) -> None:
        reason = outcome.reason or "no reason provided"
        super().__init__(f"{stage} guardrail '{guardrail}' blocked tool '{tool}' for role '{role}': {reason}")
        self.outcome, self.guardrail = outcome, guardrail
        self.role, self.tool = role, tool
        self.stage: GuardrailStage = stage

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.outcome, self.guardrail, self.role, self.tool, self.stage)


def _rebuild(
    outcome: GuardrailOutcome, guardrail: str, role: str, tool: str, stage: GuardrailStage
) -> GuardrailViolatedError:
    return GuardrailViolatedError(outcome, guardrail=guardrail, role=role, tool=tool, stage=stage)


def _name(guardrail: AnyGuardrail) -> str:
    return getattr(guardrail, "name", None) or type(guardrail).__name__


def _enforce(outcome: GuardrailOutcome, guardrail: AnyGuardrail, role: str, tool: str, stage: GuardrailStage) -> None:
    if not outcome.allowed:
        raise GuardrailViolatedError(outcome, guardrail=_name(guardrail), role=role, tool=tool, stage=stage)


def _settled(answer: GuardrailOutcome | Awaitable[GuardrailOutcome], guardrail: AnyGuardrail) -> GuardrailOutcome:
    if isinstance(answer, GuardrailOutcome) or not inspect.isawaitable(answer):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()
    raise TypeError(f"guardrail '{_name(guardrail)}' is asynchronous: run it in an async session")


def run_pre_checks(guardrails: Iterable[AnyGuardrail], *, role: str, tool: str) -> None:
    """Ask each guardrail, in order, whether `tool` may run.

    Raises:
        GuardrailViolatedError: the first one that says no; later ones are not asked.
        TypeError: one is asynchronous.
    """
    for guardrail in guardrails:
        outcome = _settled(guardrail.check_pre(role=role, tool=tool), guardrail)
        _enforce(outcome, guardrail, role, tool, "pre")


def run_post_checks(guardrails: Iterable[AnyGuardrail], value: Any, *, role: str, tool: str) -> None:
    """Ask each guardrail, in order, whether `value` may leave.

    Raises:
        GuardrailViolatedError: the first one that says no; later ones are not asked.
        TypeError: one is asynchronous.
    """
    for guardrail in guardrails:
        outcome = _settled(guardrail.check_post(value, role=role, tool=tool), guardrail)
        _enforce(outcome, guardrail, role, tool, "post")


async def arun_pre_checks(guardrails: Iterable[AnyGuardrail], *, role: str, tool: str) -> None:
    """`run_pre_checks`, awaiting the guardrails that need it."""
    for guardrail in guardrails:
        answer = guardrail.check_pre(role=role, tool=tool)
        outcome = await answer if inspect.isawaitable(answer) else answer
        _enforce(outcome, guardrail, role, tool, "pre")


async def arun_post_checks(guardrails: Iterable[AnyGuardrail], value: Any, *, role: str, tool: str) -> None:
    """`run_post_checks`, awaiting the guardrails that need it."""
    for guardrail in guardrails:
        answer = guardrail.check_post(value, role=role, tool=tool)
        outcome = await answer if inspect.isawaitable(answer) else answer
        _enforce(outcome, guardrail, role, tool, "post")
