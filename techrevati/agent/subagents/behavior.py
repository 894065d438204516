"""What the model is told of sub-agents, and what becomes of those whose worker died.

| when | what |
| run_start | children that nobody runs any more are stopped; for the first one it is asked whether to go on |
| step_start | the ends of children are written down |
| before_inference | agents to send out, active children, ends of background children |
| after_tool_execute | the end of a child that was waited for |
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import msgspec

from techrevati.agent.actions import (
    ActionSet,
    AddContextMessage,
    AddSystemContext,
    AfterToolExecuteAction,
    BeforeInferenceAction,
    ContextMessage,
    Effect,
    LifecycleAction,
    Target,
)
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.definition import SubAgentSpec
from techrevati.agent.lifecycle import CallStatus
from techrevati.agent.loop import records
from techrevati.agent.state.paths import SUSPENDED_CALL, TOOL_CALL_STATE
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.spec import AnyStateAction, StateSpec
from techrevati.agent.subagents.port import SubAgentStatus
from techrevati.agent.subagents.state import Announced, ChildEnded, SubAgent, about, children_of
from techrevati.agent.subagents.tools import lost, standing, visible
from techrevati.agent.suspension import (
    PendingToolCall,
    ResumeAction,
    ResumeMode,
    SuspendedCall,
    Suspension,
    ToolCallResume,
)

RECOVER = "recover_agent_run"
MOST_ENTRIES = 64
MOST_BYTES = 16 * 1024

Verdict = Literal["allow", "ask", "deny"]
Permission = Callable[[ReadOnlyContext, str], Verdict]
"""Says what may happen without asking, by the state and the name of the action."""


class SubAgentsBehavior(AgentBehavior):
    """Keeps the list of children true, and tells the model what it can send out."""

    id = "agent_tools"
    states = (SubAgent,)

    def __init__(self, specs: tuple[SubAgentSpec, ...]) -> None:
        self._specs = specs

    async def step_start(self, ctx: ReadOnlyContext) -> Effect[LifecycleAction]:
        actions: list[LifecycleAction] = []
        for run_id, child in children_of(ctx.document).items():
            if child.status is SubAgentStatus.RUNNING and ctx.children is not None:
                status, error = standing(child, await ctx.children.status(run_id))
                if status is not SubAgentStatus.RUNNING:
                    actions.append(about(run_id, ChildEnded(child.epoch, status, error)))
        return ActionSet.of(actions)

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        actions: list[BeforeInferenceAction] = []
        if advert := advertisement(self._specs, ctx):
            actions.append(AddSystemContext(advert))
        children = children_of(ctx.document)
        active = [f"- {run_id}: {c.agent_id}" for run_id, c in children.items() if _is_active(c)]
        if active:
            actions.append(AddSystemContext("Agents at work in the background:\n" + "\n".join(active)))
        for run_id, child in children.items():
            if child.background and not child.announced and child.status is not SubAgentStatus.RUNNING:
                actions.append(AddContextMessage(_notice(run_id, child)))
                actions.append(about(run_id, Announced()))
        return ActionSet.of(actions)

    async def after_tool_execute(self, ctx: ReadOnlyContext) -> Effect[AfterToolExecuteAction]:
        resume, result = ctx.resume_input, ctx.tool_result
        if ctx.tool_name != "agent_run" or resume is None or result is None or not isinstance(result.data, dict):
            return None
        run_id, status = result.data.get("run_id"), result.data.get("status")
        child = children_of(ctx.document).get(str(run_id))
        if child is None or status not in set(SubAgentStatus) - {SubAgentStatus.RUNNING}:
            return None
        return about(str(run_id), ChildEnded(child.epoch, SubAgentStatus(status), result.data.get("error")))


def _is_active(child: SubAgent) -> bool:
    return child.background and child.status is SubAgentStatus.RUNNING


def _notice(run_id: str, child: SubAgent) -> ContextMessage:
    error = f" ({child.error})" if child.error else ""
    text = (
        f"Background agent {child.agent_id}, run {run_id}, is {child.status.value}{error}. agent_output has its answer."
    )
    return ContextMessage(f"background_task_notification:{run_id}:{child.epoch}", text, target=Target.CONVERSATION)


def advertisement(specs: tuple[SubAgentSpec, ...], ctx: ReadOnlyContext) -> str:
    """List the agents the run may send out, in 64 lines and 16 KiB at most."""
    offered = [spec for spec in specs if visible(specs, spec.id, ctx.policy, ctx.identity.agent_id)]
    lines: list[str] = []
    size = 0
    for spec in offered[:MOST_ENTRIES]:
        line = f"- {spec.id}: {' '.join(spec.description.split())}".rstrip(": ")
        size += len(line.encode()) + 1
        if size > MOST_BYTES:
            break
        lines.append(line)
    if not lines:
        return ""
    left = len(offered) - len(lines)
    more = [f"({left} more are not listed)"] if left else []
    return "\n".join(("Agents you can send out with agent_run:", *lines, *more))


class _Parked(msgspec.Struct, frozen=True, tag="parked"):
    call: SuspendedCall


class RecoveryQuestion(StateSpec):
    """The suspended call of a recovery question, as `SuspendedCall` is stored."""

    PATH = SUSPENDED_CALL
    SCOPE = StateScope.TOOL_CALL
    ACTION: ClassVar[object] = _Parked

    call_id: str = ""
    tool_name: str = ""
    arguments: Any = None
    suspension: Any = None
    pending: Any = None
    resume_mode: ResumeMode = ResumeMode.REPLAY

    def reduce(self, action: _Parked) -> None:
        call = action.call
        self.call_id, self.tool_name, self.arguments = call.call_id, call.tool_name, call.arguments
        self.suspension, self.pending = msgspec.to_builtins(call.suspension), msgspec.to_builtins(call.pending)


class _Status(msgspec.Struct, frozen=True, tag="status"):
    state: records.ToolCallState


class RecoveryCall(StateSpec):
    """The state of a recovery question's call, as `ToolCallState` is stored."""

    PATH = TOOL_CALL_STATE
    SCOPE = StateScope.TOOL_CALL
    ACTION: ClassVar[object] = _Status

    call_id: str = ""
    tool_name: str = ""
    arguments: Any = None
    status: CallStatus = CallStatus.NEW
    resume_token: str | None = None
    resume: ToolCallResume | None = None
    updated_at: int = 0

    def reduce(self, action: _Status) -> None:
        state = action.state
        self.call_id, self.tool_name, self.arguments = state.call_id, state.tool_name, state.arguments
        self.status, self.resume_token, self.resume = state.status, state.resume_token, state.resume
        self.updated_at = state.updated_at


class RecoveryBehavior(AgentBehavior):
    """Finds children that nobody runs any more when a run starts, and asks about the first of them."""

    id = "agent_recovery"
    states = (RecoveryQuestion, RecoveryCall)

    def __init__(self, permission: Permission) -> None:
        self._permission = permission

    async def run_start(self, ctx: ReadOnlyContext) -> Effect[LifecycleAction]:
        if ctx.children is None:
            return None
        actions: list[LifecycleAction] = []
        orphans: list[tuple[str, SubAgent]] = []
        for run_id, child in children_of(ctx.document).items():
            if child.status is SubAgentStatus.RUNNING:
                view = await ctx.children.status(run_id)
                status, error = standing(child, view)
                if status is SubAgentStatus.STOPPED and (view is None or view.end is None):
                    actions.append(about(run_id, lost(child)))
                    orphans.append((run_id, child))
                elif status is not SubAgentStatus.RUNNING:
                    actions.append(about(run_id, ChildEnded(child.epoch, status, error)))
        if orphans and not _is_asked(ctx):
            actions.extend(self._question(ctx, *orphans[0]))
        return ActionSet.of(actions)

    def _question(self, ctx: ReadOnlyContext, run_id: str, child: SubAgent) -> list[AnyStateAction]:
        verdict = self._permission(ctx, RECOVER)
        if verdict == "deny":
            return []
        call_id = f"agent_recovery_{run_id}"
        arguments = {"run_id": run_id, "agent_id": child.agent_id, "background": False}
        asked = Suspension(
            call_id, RECOVER, f"Agent {child.agent_id} was interrupted. Resume it?", arguments, {"type": "boolean"}
        )
        call = SuspendedCall(call_id, "agent_run", arguments, asked, PendingToolCall(call_id, RECOVER, arguments))
        resume = ToolCallResume(f"recovery:{run_id}", ResumeAction.RESUME, True, None, ctx.now_ms)
        allowed = verdict == "allow"
        state = records.ToolCallState(
            call_id,
            "agent_run",
            arguments,
            CallStatus.RESUMING if allowed else CallStatus.SUSPENDED,
            None if allowed else call_id,
            resume if allowed else None,
            updated_at=ctx.now_ms,
        )
        return [
            AnyStateAction.new_for_call(RecoveryQuestion, _Parked(call), call_id),
            AnyStateAction.new_for_call(RecoveryCall, _Status(state), call_id),
        ]


def _is_asked(ctx: ReadOnlyContext) -> bool:
    return any(call.suspension.action == RECOVER for call in records.suspended_calls(ctx.document))
