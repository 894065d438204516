"""Contexts as the loop hands them to hooks and tools, and states reduced as the loop reduces them."""

from collections.abc import Iterable, Sequence
from typing import Any

from techrevati.agent.actions import ActionSet, Phase, action_set, checked
from techrevati.agent.context import ReadOnlyContext, RunIdentity
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.reduction import reduce_actions
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.threads.message import Message
from techrevati.agent.tool_context import ToolCallContext

IDENTITY = RunIdentity("thread-1", "run-1", "agent-1")


def ctx(phase: Phase, messages: Sequence[Message] = (), document: Any = None, **fields: Any) -> ReadOnlyContext:
    fields = {"identity": IDENTITY, "policy": RunPolicy(), "initial_message_count": 0, **fields}
    return ReadOnlyContext(phase=phase, messages=messages, document=document or {}, **fields)


def call_ctx(name: str = "t", messages: Sequence[Message] = (), document: Any = None, **fields: Any) -> ToolCallContext:
    fields = {"identity": IDENTITY, "policy": RunPolicy(), **fields}
    return ToolCallContext("call-1", name, document=document or {}, messages=messages, **fields)


def actions(effect: Any, phase: Phase) -> tuple[Any, ...]:
    """Hold what a hook gave to its phase, as the loop does."""
    return checked(effect, phase, "test")


def reduced(document: Any, effect: Any, actor: str = "test") -> Any:
    """Give the document after the state actions among an effect."""
    states: Iterable[AnyStateAction] = [a for a in action_set(effect) if isinstance(a, AnyStateAction)]
    return reduce_actions(document or {}, list(states), actor=actor).document


def only(effect: Any, kind: type) -> list[Any]:
    return [action for action in action_set(effect) if isinstance(action, kind)]


NOTHING: ActionSet[Any] = ActionSet()
