"""Hooks: change what goes into the model, a tool or a handoff, and what comes out.

    call ──before, first to last──▶ model │ tool │ handoff ──after, last to first──▶ result

Each hook gets a frozen record and returns it, changed (`dataclasses.replace`) or not: replace
`call` to wrap it or to answer in its place.  In async sessions `before_*` and `after_*` of model
and tool may be coroutines.  Hooks decide: what they raise stops the turn.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from techrevati.runtime.handoffs import Handoff


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A turn about to be made; `call` takes no arguments (async sessions: it returns an awaitable)."""

    role: str
    phase: str
    model: str
    timeout: float | None
    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool about to run; permissions and guardrails judge the `tool` that comes out."""

    role: str
    phase: str
    tool: str
    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class HandoffCall:
    """A handoff about to be issued."""

    source_role: str
    target_role: str
    phase: str
    reason: str
    context: dict[str, Any]


class Hook:
    """What to do around a session's calls.  Override the phases you need."""

    def before_model(self, call: ModelCall) -> ModelCall | Awaitable[ModelCall]:
        """Last word on a turn before it is made."""
        return call

    def after_model(self, call: ModelCall, result: Any) -> Any:
        """Last word on a turn's result; its usage is measured before."""
        return result

    def before_tool(self, call: ToolCall) -> ToolCall | Awaitable[ToolCall]:
        """Last word on a tool before it is authorized and run."""
        return call

    def after_tool(self, call: ToolCall, result: Any) -> Any:
        """Last word on a tool's result; guardrails see what comes out."""
        return result

    def before_handoff(self, call: HandoffCall) -> HandoffCall:
        """Last word on where the work goes."""
        return call

    def after_handoff(self, handoff: Handoff) -> None:
        """The handoff has been issued."""


def _settled(answer: Any, hook: Hook, method: str) -> Any:
    if not inspect.isawaitable(answer):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()
    where = "handoffs never wait" if method == "before_handoff" else "use it in an async session"
    raise TypeError(f"hook {type(hook).__name__}.{method} is asynchronous: {where}")


def enter_model(hooks: Iterable[Hook], call: ModelCall) -> ModelCall:
    """Pass a turn through `before_model`, first to last."""
    for hook in hooks:
        call = _settled(hook.before_model(call), hook, "before_model")
    return call


def leave_model(hooks: tuple[Hook, ...], call: ModelCall, result: Any) -> Any:
    """Pass a result through `after_model`, last to first."""
    for hook in reversed(hooks):
        result = _settled(hook.after_model(call, result), hook, "after_model")
    return result


def enter_tool(hooks: Iterable[Hook], call: ToolCall) -> ToolCall:
    """Pass a tool through `before_tool`, first to last."""
    for hook in hooks:
        call = _settled(hook.before_tool(call), hook, "before_tool")
    return call


def leave_tool(hooks: tuple[Hook, ...], call: ToolCall, result: Any) -> Any:
    """Pass a result through `after_tool`, last to first."""
    for hook in reversed(hooks):
        result = _settled(hook.after_tool(call, result), hook, "after_tool")
    return result


def enter_handoff(hooks: Iterable[Hook], call: HandoffCall) -> HandoffCall:
    """Pass a handoff through `before_handoff`, first to last; it never waits."""
    for hook in hooks:
        call = _settled(hook.before_handoff(call), hook, "before_handoff")
    return call


async def _awaited(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


async def aenter_model(hooks: Iterable[Hook], call: ModelCall) -> ModelCall:
    """`enter_model`, awaiting the hooks that need it."""
    for hook in hooks:
        call = await _awaited(hook.before_model(call))
    return call


async def aleave_model(hooks: tuple[Hook, ...], call: ModelCall, result: Any) -> Any:
    """`leave_model`, awaiting the hooks that need it."""
    for hook in reversed(hooks):
        result = await _awaited(hook.after_model(call, result))
    return result


async def aenter_tool(hooks: Iterable[Hook], call: ToolCall) -> ToolCall:
    """`enter_tool`, awaiting the hooks that need it."""
    for hook in hooks:
        call = await _awaited(hook.before_tool(call))
    return call


async def aleave_tool(hooks: tuple[Hook, ...], call: ToolCall, result: Any) -> Any:
    """`leave_tool`, awaiting the hooks that need it."""
    for hook in reversed(hooks):
        result = await _awaited(hook.after_tool(call, result))
    return result
