"""Hand-off inside a run: another persona takes the conversation over.

    hand_off(to) ─▶ state ─▶ from the next answer on: its model, words and tools

A hand-off to another *agent* with a pool of its own is the fleet's; this one changes what the same agent is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from techrevati.agent.actions import (
    ActionSet,
    AddSystemContext,
    BeforeInferenceAction,
    BeforeToolExecuteAction,
    Block,
    Effect,
    ExcludeTool,
    OverrideInference,
    OverrideModel,
)
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.errors import AgentError
from techrevati.agent.policy import permitted
from techrevati.agent.state.notation import Path
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.spec import AnyStateAction, StateSpec
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolError, ToolExecutionEffect, ToolResult
from techrevati.agent.typed_tool import FunctionTool, tool

HAND_OFF_TOOL = "hand_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """What is laid over the agent while this persona speaks; None and empty change nothing."""

    name: str
    description: str
    instructions: str = ""
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    allowed_tools: tuple[str, ...] | None = None
    excluded_tools: tuple[str, ...] = ()

    def allows(self, tool_id: str) -> bool:
        """Tell whether the persona has a tool; the way out is always open."""
        return tool_id == HAND_OFF_TOOL or permitted(tool_id, self.allowed_tools, self.excluded_tools)


class BadPersona(AgentError):
    """Personas that cannot be told apart."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(name, cause)
        self.name, self.cause = name, cause

    def __str__(self) -> str:
        return f"persona {self.name!r} is refused: {self.cause}"


class TakeOver(msgspec.Struct, frozen=True):
    """Let a persona speak; None is the agent itself."""

    persona: str | None


class ActivePersona(StateSpec):
    PATH: ClassVar[Path] = ("__persona",)
    SCOPE = StateScope.RUN
    NAME = "ActivePersona"
    ACTION = TakeOver

    active: str | None = None

    def reduce(self, action: TakeOver) -> None:
        self.active = action.persona


class HandOff(AgentBehavior):
    """Lets the agent become other personas; give it `tools` beside.

    Raises:
        BadPersona: a name is blank, used twice, or the agent's own (``self``).
    """

    id = "hand_off"
    states = (ActivePersona,)
    SELF = "self"

    def __init__(self, personas: Sequence[Persona]) -> None:
        self._personas: dict[str, Persona] = {}
        for persona in personas:
            if not persona.name.strip() or persona.name == self.SELF:
                raise BadPersona(persona.name, f"fix: a name that is neither blank nor {self.SELF!r}")
            if persona.name in self._personas:
                raise BadPersona(persona.name, "the name is used twice; fix: rename one")
            self._personas[persona.name] = persona
        self.tools = (self._tool(),)

    def _active(self, ctx: ReadOnlyContext) -> Persona | None:
        return self._personas.get(ctx.scoped_state_of(ActivePersona).active or "")

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        listed = "\n".join(f"- {each.name}: {each.description}" for each in self._personas.values())
        active = self._active(ctx)
        actions: list[BeforeInferenceAction] = [
            AddSystemContext(f"With {HAND_OFF_TOOL} you can become (or {self.SELF} again):\n{listed}")
        ]
        if active is None:
            return ActionSet.of(actions)
        if active.instructions:
            actions.append(AddSystemContext(f"You are {active.name} now. {active.instructions}"))
        if active.model:
            actions.append(OverrideModel(active.model))
        if active.options:
            actions.append(OverrideInference(active.options))
        actions += [ExcludeTool(each.id) for each in ctx.tools if not active.allows(each.id)]
        return ActionSet.of(actions)

    async def before_tool_execute(self, ctx: ReadOnlyContext) -> Effect[BeforeToolExecuteAction]:
        """Hold calls to the active persona's tools: what is not shown may still be called."""
        active, name = self._active(ctx), ctx.tool_name or ""
        if active is None or active.allows(name):
            return None
        return Block(f"tool {name!r} is not one of {active.name}'s")

    def _tool(self) -> FunctionTool:
        names = [*self._personas, self.SELF]

        @tool(id=HAND_OFF_TOOL, states=(ActivePersona,))
        async def hand_off(to: str, ctx: ToolCallContext, reason: str = "") -> ToolExecutionEffect:
            """Let another persona take over, from your next answer on."""
            if to not in names:
                raise ToolError(f"no persona {to!r}; there are: {', '.join(names)}", "not_found", "unknown_persona")
            take = AnyStateAction.new(ActivePersona, TakeOver(None if to == self.SELF else to))
            data = {"active": to, "reason": reason}
            return ToolExecutionEffect(ToolResult.success(HAND_OFF_TOOL, data), (take,))

        return hand_off
