"""One execution of a tool body, as a value: everything it said and asked for, so that it can be recorded whole."""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from techrevati.agent.actions import AddMessage, AddSystemReminder, AddUserMessage, ContextMessage, Phase, checked
from techrevati.agent.errors import AgentError
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.state.wiring import ActionRegistry
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import Tool, ToolError, ToolResult

JsonObject = dict[str, Any]
ToolAction = AnyStateAction | AddSystemReminder | AddUserMessage | AddMessage


@dataclass(frozen=True, slots=True)
class ToolRun:
    """What one execution came to.

    Attributes:
        actions: Checked against their phase, custom ones expanded.
        messages: What the tool queued through its context.
        scratch: What it last kept, if it `kept` anything.
    """

    result: ToolResult
    actions: tuple[ToolAction, ...] = ()
    messages: tuple[ContextMessage, ...] = ()
    scratch: Any = None
    kept: bool = False


async def run_tool(tool: Tool, arguments: Any, ctx: ToolCallContext) -> ToolRun:
    """Execute a tool once; whatever it raises becomes an error result.

    Raises:
        WrongPhase: it asked for what a tool may not ask for.
    """
    queued: list[ContextMessage] = []
    kept: list[Any] = []
    ctx = replace(ctx, on_message=queued.append, on_scratch=kept.append)
    try:
        effect = await tool.run(arguments, ctx)
    except ToolError as error:
        failed = ToolResult.error(ctx.tool_name, str(error), code=error.code)
    except Exception as error:  # noqa: BLE001  whatever a tool raises is the model's to read, not the run's to die of
        failed = ToolResult.error(ctx.tool_name, f"{type(error).__name__}: {error}")
    else:
        actions = checked(effect.actions, Phase.AFTER_TOOL_EXECUTE, f"tool {ctx.tool_name!r}")
        messages = () if effect.result.is_error else tuple(queued)
        return ToolRun(effect.result, actions, messages, kept[-1] if kept else None, bool(kept))
    return ToolRun(failed, scratch=kept[-1] if kept else None, kept=bool(kept))


class NotRecordable(AgentError):
    """What a tool gave cannot be written to a journal."""

    def __init__(self, tool_name: str, cause: str) -> None:
        super().__init__(tool_name, cause)
        self.tool_name, self.cause = tool_name, cause

    def __str__(self) -> str:
        return f"the result of tool {self.tool_name!r} cannot be recorded: {self.cause}; fix: return JSON"


def encode_run(run: ToolRun) -> JsonObject:
    """Give the JSON of an execution, for a journal.

    Raises:
        NotRecordable: the result holds what is not JSON.
    """
    try:
        return {
            "result": msgspec.to_builtins(run.result),
            "actions": [_encode_action(action) for action in run.actions],
            "messages": msgspec.to_builtins(run.messages),
            "scratch": msgspec.to_builtins(run.scratch),
            "kept": run.kept,
        }
    except (TypeError, ValueError) as error:
        raise NotRecordable(run.result.tool_name, str(error)) from error


def decode_run(recorded: JsonObject, states: ActionRegistry) -> ToolRun:
    """Read what `encode_run` gave.

    Raises:
        UnknownState, BadAction: an action of a state that the agent no longer has.
    """
    return ToolRun(
        msgspec.convert(recorded["result"], ToolResult),
        tuple(_decode_action(action, states) for action in recorded["actions"]),
        msgspec.convert(recorded["messages"], tuple[ContextMessage, ...]),
        recorded["scratch"],
        recorded["kept"],
    )


_KINDS: dict[str, type[Any]] = {"reminder": AddSystemReminder, "user_message": AddUserMessage, "message": AddMessage}


def _encode_action(action: ToolAction) -> JsonObject:
    if isinstance(action, AnyStateAction):
        return {"kind": "state", "value": action.entry()}
    kind = next(name for name, known in _KINDS.items() if isinstance(action, known))
    return {"kind": kind, "value": msgspec.to_builtins(action)}


def _decode_action(recorded: JsonObject, states: ActionRegistry) -> ToolAction:
    if recorded["kind"] == "state":
        return states.read(recorded["value"])
    decoded: ToolAction = msgspec.convert(recorded["value"], _KINDS[recorded["kind"]])
    return decoded
