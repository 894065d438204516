"""Large tool sets: some tools are offered by name only, until the model searches for them.

rules ─▶ eager │ deferred ──tool_search──▶ promoted for the run ──unused for long──▶ deferred again
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import msgspec

from techrevati.agent.actions import (
    ActionSet,
    AddSystemContext,
    AfterToolExecuteAction,
    BeforeInferenceAction,
    Effect,
    ExcludeTool,
    LifecycleAction,
)
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.behaviours.permissions.gate import Permissions
from techrevati.agent.behaviours.permissions.policy import hidden
from techrevati.agent.behaviours.tokens import text_tokens, tool_tokens
from techrevati.agent.behaviours.tool_search import DEFAULT_RESULTS, Entry, parse_query, search
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import Document
from techrevati.agent.state.notation import Path
from techrevati.agent.state.observed import ORSet
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.spec import AnyStateAction, StateSpec
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import Tool, ToolDescriptor, ToolExecutionEffect, ToolResult
from techrevati.agent.typed_tool import FunctionTool, tool

SEARCH_TOOL = "tool_search"


class Loading(StrEnum):
    """How a tool is offered."""

    EAGER = "eager"
    """With its schema."""
    DEFERRED = "deferred"
    """By name, until it is searched for."""


@dataclass(frozen=True, slots=True)
class LoadingRule:
    """How tools like the glob `tool` are offered; the first rule that matches decides."""

    tool: str
    loading: Loading


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferralPolicy:
    """What is deferred, and when that is worth it.

    Attributes:
        enabled: None defers only if that saves more than `overhead` tokens per request.
        demote_after: Steps without a use after which a promoted tool is deferred again; None never.
    """

    rules: tuple[LoadingRule, ...] = ()
    default: Loading = Loading.DEFERRED
    enabled: bool | None = None
    overhead: int = 1136
    demote_after: int | None = None

    def loading(self, tool_id: str) -> Loading:
        return next((rule.loading for rule in self.rules if fnmatchcase(tool_id, rule.tool)), self.default)


class Promote(msgspec.Struct, frozen=True, tag="promote"):
    tools: tuple[str, ...]


class Demote(msgspec.Struct, frozen=True, tag="demote"):
    tools: tuple[str, ...]


class NoteUse(msgspec.Struct, frozen=True, tag="note_use"):
    tools: tuple[str, ...]
    step: int


class PromotedTools(StateSpec):
    """The deferred tools that this run has found, and when each was last of use (step)."""

    PATH: ClassVar[Path] = ("__promoted_tools",)
    SCOPE = StateScope.RUN
    NAME = "PromotedTools"
    ACTION = Promote | Demote | NoteUse

    tools: ORSet[str] = msgspec.field(default_factory=ORSet)
    used: dict[str, int] = msgspec.field(default_factory=dict)

    def reduce(self, action: Promote | Demote | NoteUse) -> None:
        match action:
            case Promote(tools):
                for name in tools:
                    self.tools.insert(name)
            case Demote(tools):
                for name in tools:
                    self.tools.remove(name)
                self.used = {name: step for name, step in self.used.items() if name not in tools}
            case NoteUse(tools, step):
                self.used = self.used | dict.fromkeys(tools, step)


def savings(deferred: Sequence[ToolDescriptor]) -> int:
    """Estimate the tokens that naming tools saves over describing them."""
    return tool_tokens(deferred) - text_tokens(", ".join(each.id for each in deferred))


class DeferredTools(AgentBehavior):
    """Hides the schemas of deferred tools; give the agent `tools` (the search) beside the ones named here.

    Args:
        tools: Every tool of the agent.
        permissions: What it denies for every call is not found either.
    """

    id = "deferred_tools"
    states = (PromotedTools,)

    def __init__(
        self, tools: Sequence[Tool], policy: DeferralPolicy | None = None, *, permissions: Permissions | None = None
    ) -> None:
        self.policy = policy or DeferralPolicy()
        self._permissions = permissions
        self._known = tuple(each.descriptor for each in tools if each.descriptor.id != SEARCH_TOOL)
        self.tools = (self._search_tool(),)

    def deferred(self, tools: Sequence[ToolDescriptor], document: Document) -> list[ToolDescriptor]:
        """Give those tools that are offered by name only, promoted ones included; none if it is not worth it."""
        found = [each for each in tools if each.id != SEARCH_TOOL and self.policy.loading(each.id) is Loading.DEFERRED]
        if self._permissions is not None:
            unseen = set(hidden([each.id for each in found], self._permissions.layers(document)))
            found = [each for each in found if each.id not in unseen]
        enabled = self.policy.enabled
        return found if (savings(found) > self.policy.overhead if enabled is None else enabled) else []

    async def step_start(self, ctx: ReadOnlyContext) -> Effect[LifecycleAction]:
        """Defer again what was of no use for long."""
        patience, state = self.policy.demote_after, ctx.scoped_state_of(PromotedTools)
        if patience is None:
            return None
        idle = tuple(name for name in state.tools if ctx.step - state.used.get(name, ctx.step) >= patience)
        return AnyStateAction.new(PromotedTools, Demote(idle)) if idle else None

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        deferred = self.deferred(ctx.tools, ctx.document)
        if not deferred or not any(each.id == SEARCH_TOOL for each in ctx.tools):
            return ExcludeTool(SEARCH_TOOL)  # there is nothing to find, or no way to find it
        promoted = set(ctx.scoped_state_of(PromotedTools).tools)
        unseen = [each.id for each in deferred if each.id not in promoted]
        if not unseen:
            return None
        names = f"More tools, to be found with {SEARCH_TOOL} before they are used: {', '.join(unseen)}"
        return ActionSet.of([AddSystemContext(names), *(ExcludeTool(name) for name in unseen)])

    async def after_tool_execute(self, ctx: ReadOnlyContext) -> Effect[AfterToolExecuteAction]:
        """Note which deferred tools were found or used; one that the model called unseen is promoted too."""
        result, name = ctx.tool_result, ctx.tool_name or ""
        if name == SEARCH_TOOL:
            data = result.data if result is not None and isinstance(result.data, dict) else {}
            found = tuple(each["name"] for each in data.get("tools", ()))
            return AnyStateAction.new(PromotedTools, NoteUse(found, ctx.step)) if found else None
        if name not in {each.id for each in self.deferred(ctx.tools, ctx.document)}:
            return None
        known = name in ctx.scoped_state_of(PromotedTools).tools
        promote = [] if known else [AnyStateAction.new(PromotedTools, Promote((name,)))]
        return ActionSet.of([*promote, AnyStateAction.new(PromotedTools, NoteUse((name,), ctx.step))])

    def _search_tool(self) -> FunctionTool:
        @tool(id=SEARCH_TOOL, states=(PromotedTools,))
        async def tool_search(query: str, ctx: ToolCallContext, limit: int = DEFAULT_RESULTS) -> ToolExecutionEffect:
            """Find tools and make them usable: "select:a,b" by exact name, "+must rest", or free words."""
            offered = self._offered(ctx.policy, ctx.document)
            names = search(parse_query(query), [Entry(each.id, each.description) for each in offered], limit=limit)
            by_id = {each.id: each for each in offered}
            found: list[dict[str, Any]] = [{"name": each, "description": by_id[each].description} for each in names]
            data = {"tools": found, "searched": len(offered)}
            if not names:
                return ToolExecutionEffect(ToolResult.success(SEARCH_TOOL, data, "nothing was found"))
            promote = AnyStateAction.new(PromotedTools, Promote(tuple(names)))
            text = "from your next answer on these can be called"
            return ToolExecutionEffect(ToolResult.success(SEARCH_TOOL, data, text), (promote,))

        return tool_search

    def _offered(self, policy: RunPolicy, document: Document) -> list[ToolDescriptor]:
        return self.deferred([each for each in self._known if policy.allows_tool(each.id)], document)
