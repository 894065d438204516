"""The tools through which a model sends agents out and looks after them.

    agent_run   start, look at, or take up a child      agent_stop, task_cancel    stop one
    agent_output, task_output   its latest answer       task_status                one, or all

A child in the foreground parks the call, and the run with it: no worker waits for a child.
"""

from collections.abc import Callable
from typing import Any

from techrevati.agent.definition import AgentDefinition, SubAgentSpec
from techrevati.agent.policy import RunPolicy
from techrevati.agent.subagents.forking import forked
from techrevati.agent.subagents.port import ChildStart, ChildView, SubAgents, SubAgentStatus, child_thread_id
from techrevati.agent.subagents.state import (
    ChildEnded,
    ChildStarted,
    StopRequested,
    SubAgent,
    about,
    children_of,
    ended,
)
from techrevati.agent.suspension import PendingToolCall, ResumeMode, SuspendTicket, Suspension
from techrevati.agent.threads.message import Message
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import Tool, ToolError, ToolExecutionEffect, ToolResult
from techrevati.agent.typed_tool import FunctionTool

WAIT = "agent_run:wait"
"""Action of the suspension that a foreground child's parent waits on; its id is the child's run id."""
GONE = "its worker is gone and nobody took over"
RESUME_PROMPT = "You were interrupted. Go on with your task."


def visible(specs: tuple[SubAgentSpec, ...], agent_id: str, policy: RunPolicy, own_id: str) -> bool:
    """Say whether an agent may be sent out: declared, allowed, and not oneself."""
    return agent_id != own_id and policy.allows_agent(agent_id) and any(spec.id == agent_id for spec in specs)


def inherited(policy: RunPolicy) -> RunPolicy:
    """Give what of the caller's policy binds a child: everything that excludes, and the lists of agents and skills."""
    return RunPolicy(
        excluded_tools=policy.excluded_tools,
        excluded_skills=policy.excluded_skills,
        allowed_skills=policy.allowed_skills,
        excluded_agents=policy.excluded_agents,
        allowed_agents=policy.allowed_agents,
    )


class SubAgentTools:
    """The bodies, bound to what one agent may send out."""

    def __init__(self, definition: AgentDefinition) -> None:
        self._id, self._specs, self._max_depth = definition.id, definition.sub_agents, definition.max_depth

    async def agent_run(
        self,
        ctx: ToolCallContext,
        agent_id: str | None = None,
        prompt: str | None = None,
        run_id: str | None = None,
        fork_context: bool = False,
        background: bool = False,
        run_in_background: bool = False,
    ) -> ToolExecutionEffect:
        """Send an agent to work on a prompt of its own, or look at one by run_id, resuming it if it was stopped.

        One that is at work hears the prompt, if there is one; one that has completed or failed does not.
        In the background the call returns at once; otherwise it gives the agent's answer.
        """
        aside = background or run_in_background
        if not run_id:
            if not agent_id or not prompt:
                raise ToolError("a new agent needs agent_id and prompt", code="invalid_arguments")
            messages = forked(ctx.messages, ctx.new_id) if fork_context else ()
            return await self._start(ctx, ctx.new_id(), agent_id, 1, (*messages, _said(ctx, prompt)), aside)
        child = _owned(ctx, run_id)
        view = await _port(ctx).status(run_id)
        status, error = standing(child, view)
        if status is SubAgentStatus.STOPPED:
            said = (_said(ctx, prompt or RESUME_PROMPT),)
            return await self._start(ctx, run_id, child.agent_id, child.epoch + 1, said, aside)
        found = {"run_id": run_id, "agent_id": child.agent_id, "status": status.value, "error": error}
        if prompt:
            found["message"] = await self._tell(ctx, run_id, status, prompt)
        actions = (ended(view.end),) if view is not None and view.end is not None else ()
        return ToolExecutionEffect(ToolResult.success("agent_run", found), actions)

    async def _tell(self, ctx: ToolCallContext, run_id: str, status: SubAgentStatus, prompt: str) -> str:
        """Say something to an agent at work, before its next answer; tell what came of it."""
        refused: str | None = f"it has {status.value} already"
        if status is SubAgentStatus.RUNNING:
            said_as = f"{ctx.identity.run_id}:{ctx.call_id}"
            refused = await _port(ctx).message(run_id, prompt, message_id=said_as)
        if refused is None:
            return "it will hear the prompt before its next answer"
        return f"the prompt was not said to it: {refused}; fix: send out a new agent"

    async def _start(
        self, ctx: ToolCallContext, run_id: str, agent_id: str, epoch: int, messages: tuple[Message, ...], aside: bool
    ) -> ToolExecutionEffect:
        if not visible(self._specs, agent_id, ctx.policy, self._id):
            raise ToolError(f"there is no agent {agent_id!r} to run", code="unknown_agent")
        if ctx.depth >= self._max_depth:
            raise ToolError(f"agents may be nested {self._max_depth} deep, no deeper", code="too_deep")
        await _port(ctx).start(
            ChildStart(
                run_id=run_id,
                agent_id=agent_id,
                epoch=epoch,
                owner_thread_id=ctx.identity.thread_id,
                parent_run_id=ctx.identity.run_id,
                call_id=None if aside else ctx.call_id,
                messages=messages,
                policy=inherited(ctx.policy),
                above=ctx.binds,
                depth=ctx.depth + 1,
            )
        )
        thread_id = child_thread_id(run_id)
        begun = about(run_id, ChildStarted(agent_id, thread_id, ctx.identity.run_id, aside, ctx.started_at_ms))
        if aside:
            told = {
                "task_id": run_id,
                "run_id": run_id,
                "agent_id": agent_id,
                "status": "running_in_background",
                "message": "It goes on by itself; agent_output has its latest answer, agent_stop ends it.",
            }
            return ToolExecutionEffect(ToolResult.success("agent_run", told), (begun,))
        about_child = {"run_id": run_id, "agent_id": agent_id, "epoch": epoch}
        ticket = SuspendTicket(
            Suspension(run_id, WAIT, f"waits for agent {agent_id}", about_child),
            PendingToolCall(ctx.call_id, "agent_run", about_child),
            ResumeMode.AS_RESULT,
            hold=True,
        )
        return ToolExecutionEffect(ToolResult.suspended("agent_run", f"agent {agent_id} works", ticket), (begun,))

    async def stop(self, ctx: ToolCallContext, run_id: str) -> ToolExecutionEffect:
        """Stop an agent you sent out, with every agent it sent out itself."""
        child = _owned(ctx, run_id)
        status, error = standing(child, await _port(ctx).status(run_id))
        told: dict[str, Any] = {"run_id": run_id, "agent_id": child.agent_id, "status": status.value, "error": error}
        if status is not SubAgentStatus.RUNNING:
            return ToolExecutionEffect(ToolResult.success(ctx.tool_name, told))
        await _port(ctx).stop(run_id)
        told["status"] = SubAgentStatus.STOPPED.value
        return ToolExecutionEffect(ToolResult.success(ctx.tool_name, told), (about(run_id, StopRequested()),))

    async def output(self, ctx: ToolCallContext, run_id: str) -> ToolExecutionEffect:
        """Read the latest answer of an agent you sent out."""
        child = _owned(ctx, run_id)
        view = await _port(ctx).status(run_id)
        status, error = standing(child, view)
        told = {"run_id": run_id, "agent_id": child.agent_id, "status": status.value, "error": error}
        told["output"] = await _port(ctx).output(run_id)
        actions = (ended(view.end),) if view is not None and view.end is not None else ()
        return ToolExecutionEffect(ToolResult.success(ctx.tool_name, told), actions)

    async def task_status(self, ctx: ToolCallContext, run_id: str | None = None) -> dict[str, Any]:
        """See how an agent you sent out stands, or all of them, oldest first."""
        known = {run_id: _owned(ctx, run_id)} if run_id else children_of(ctx.document)
        tasks = []
        for name, child in known.items():
            status, error = standing(child, await _port(ctx).status(name))
            tasks.append({"task_id": name, "agent_id": child.agent_id, "status": status.value, "error": error})
        return {"tasks": tasks}


def sub_agent_tools(definition: AgentDefinition) -> list[Tool]:
    """Give the tools of an agent that has sub-agents."""
    bodies = SubAgentTools(definition)
    named: dict[str, Callable[..., Any]] = {
        "agent_run": bodies.agent_run,
        "agent_stop": bodies.stop,
        "agent_output": bodies.output,
        "task_cancel": bodies.stop,
        "task_output": bodies.output,
        "task_status": bodies.task_status,
    }
    return [FunctionTool(body, id=name, category="agents") for name, body in named.items()]


def standing(child: SubAgent, view: ChildView | None) -> tuple[SubAgentStatus, str | None]:
    """Say how a child stands, by what is stored and what its port knows; who is gone counts as stopped."""
    if child.status is not SubAgentStatus.RUNNING:
        return child.status, child.error
    if view is None or view.epoch < child.epoch:
        return SubAgentStatus.STOPPED, GONE
    if view.end is not None and view.end.epoch >= child.epoch:
        return view.end.status, view.end.error
    return (SubAgentStatus.RUNNING, None) if view.alive else (SubAgentStatus.STOPPED, GONE)


def lost(child: SubAgent) -> ChildEnded:
    return ChildEnded(child.epoch, SubAgentStatus.STOPPED, GONE)


def _said(ctx: ToolCallContext, prompt: str) -> Message:
    return Message.user(prompt, id=ctx.new_id())


def _port(ctx: ToolCallContext) -> SubAgents:
    if ctx.children is None:
        raise ToolError("this run has nowhere to run agents", code="unavailable")
    return ctx.children


def _owned(ctx: ToolCallContext, run_id: str) -> SubAgent:
    """Give a child of this thread; anybody else's looks unknown."""
    if not ctx.identity.thread_id:
        raise ToolError("the caller has no thread", code="missing_scope")
    child = children_of(ctx.document).get(run_id)
    if child is None:
        raise ToolError(f"there is no run {run_id!r}", code="unknown_run")
    return child
