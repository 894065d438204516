"""Assemble one model request.

    base system prompt (+ system context) ▶ session context ▶ history ▶ suffix ──transforms──▶ ModelRequest

Context messages are for this request only, unless their target is the conversation.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from techrevati.agent.actions import (
    AddContextMessage,
    AddRequestTransform,
    AddSessionContext,
    AddSystemContext,
    ContextMessage,
    ExcludeTool,
    IncludeOnlyTools,
    OverrideInference,
    OverrideModel,
    RequestView,
    Target,
)
from techrevati.agent.history import model_view
from techrevati.agent.model import ModelRequest
from techrevati.agent.state.document import Document, find
from techrevati.agent.state.notation import Path
from techrevati.agent.state.patch import Patch, Set
from techrevati.agent.threads.message import Message, Role, Visibility
from techrevati.agent.tools import ToolDescriptor

THROTTLE: Path = ("__kernel", "context")
_OUTPUT_LIMITS = ("max_output_tokens", "max_tokens", "max_completion_tokens")


class Throttle(msgspec.Struct, frozen=True):
    """When throttled context messages were last shown: inferences of the thread, counted."""

    turn: int = 0
    last: dict[str, int] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `before_inference` asked for, gathered."""

    context: tuple[ContextMessage, ...] = ()
    transforms: tuple[Any, ...] = ()
    tools: tuple[ToolDescriptor, ...] = ()
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def gather(actions: Iterable[Any], tools: Sequence[ToolDescriptor]) -> Wishes:
    """Fold the actions in order; tool filters work on what the ones before left."""
    context: dict[str, ContextMessage] = {}
    transforms, left = [], list(tools)
    model: str | None = None
    options: dict[str, Any] = {}
    for action in actions:
        match action:
            case AddContextMessage(message):
                context[message.key] = message
            case AddSystemContext(text):
                context[f"system:{len(context)}"] = ContextMessage(f"system:{len(context)}", text)
            case AddSessionContext(text):
                key = f"session:{len(context)}"
                context[key] = ContextMessage(key, text, target=Target.SESSION)
            case ExcludeTool(tool_id):
                left = [tool for tool in left if tool.id != tool_id]
            case IncludeOnlyTools(tool_ids):
                left = [tool for tool in left if tool.id in tool_ids]
            case AddRequestTransform(transform):
                transforms.append(transform)
            case OverrideModel(name):
                model = name
            case OverrideInference(changes):
                options.update(changes)
    return Wishes(tuple(context.values()), tuple(transforms), tuple(left), model, options)


def throttled(document: Document, wished: Iterable[ContextMessage]) -> tuple[tuple[ContextMessage, ...], Patch]:
    """Leave out what was shown too recently; give the rest, and the patch that remembers it.

    A cooldown of n skips the n inferences after an injection.  Nothing is written while nothing has a cooldown.
    """
    found = find(document, THROTTLE)
    known = msgspec.convert(found, Throttle) if found is not None else Throttle()
    last, shown = dict(known.last), []
    for message in wished:
        if message.cooldown_turns <= 0 or message.target is Target.CONVERSATION:
            shown.append(message)
        elif message.key not in last or known.turn - last[message.key] > message.cooldown_turns:
            shown.append(message)
            last[message.key] = known.turn
    if not last:
        return tuple(shown), Patch.EMPTY
    return tuple(shown), Patch((Set(THROTTLE, msgspec.to_builtins(Throttle(known.turn + 1, last))),))


def assemble(
    instructions: str,
    context: Iterable[ContextMessage],
    messages: Sequence[Message],
    wishes: Wishes,
    *,
    model: str,
    options: Mapping[str, Any],
) -> ModelRequest:
    """Give the request; conversation messages are in `messages` already."""
    by_target: dict[Target, list[ContextMessage]] = {target: [] for target in Target}
    for message in context:
        by_target[message.target].append(message)
    system = "\n".join(text for text in (instructions, *(m.content for m in by_target[Target.SYSTEM])) if text)
    head = [_shown("system", "system", system)] if system else []
    assembled = (
        *head,
        *(_shown(m.key, m.role, m.content) for m in by_target[Target.SESSION]),
        *model_view(messages),
        *(_shown(m.key, m.role, m.content) for m in by_target[Target.SUFFIX_SYSTEM]),
    )
    view = RequestView(assembled, wishes.tools)
    for transform in wishes.transforms:
        after = transform(view)
        view = RequestView(after.messages, view.tools, view.prompt_cache or after.prompt_cache)
    merged = {**options, **wishes.options}
    limit = next((merged[name] for name in _OUTPUT_LIMITS if isinstance(merged.get(name), int)), None)
    return ModelRequest(model, view.messages, view.tools, merged, limit, view.prompt_cache)


def _shown(key: str, role: str, text: str) -> Message:
    return Message(id=f"context:{key}", role=Role(role), content=text, visibility=Visibility.INTERNAL)
