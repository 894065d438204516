"""Tools that run in a pool of their own (``beta``), and agents of every tool mode that call them."""

import asyncio
import os
import time
from typing import Any, ClassVar

import msgspec

from techrevati.agent.actions import AddSystemReminder, ContextMessage, Target
from techrevati.agent.behaviours.permissions import Permissions
from techrevati.agent.definition import AgentDefinition, SubAgentSpec, ToolExecutionMode
from techrevati.agent.state.registers import GCounter
from techrevati.agent.state.spec import AnyStateAction, StateSpec
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolExecutionEffect, ToolProgress, ToolResult
from techrevati.agent.typed_tool import ToolRetry, tool
from tests.acceptance.declared import add, hold, mark, pay
from tests.acceptance.diary import gate, home, tell
from tests.acceptance.seams import crash_here

POOL = "beta"


class Sum(StateSpec):
    """A plain number: parallel writers conflict."""

    PATH = ("sum",)
    ACTION: ClassVar[Any] = int
    value: int = 0

    def reduce(self, action: int) -> None:
        self.value += action


class Ballots(StateSpec):
    """A counter that joins: parallel writers do not conflict."""

    PATH = ("ballots",)
    ACTION: ClassVar[Any] = int
    total: GCounter = msgspec.field(default_factory=GCounter)

    def reduce(self, action: int) -> None:
        self.total.increment(action)


def _note(ctx: ToolCallContext, what: str) -> None:
    tell(f"{what} {ctx.identity.run_id} {ctx.call_id} {ctx.idempotency_key} {ctx.attempt} {os.getpid()}")


@tool(role=POOL)
async def crunch(ctx: ToolCallContext, name: str, wait: str = "") -> str:
    """Work for long, or until a gate opens; tell how far it is."""
    _note(ctx, "crunch")
    ctx.report_progress(ToolProgress(progress=0.5, message=f"half of {name}"))
    try:
        if wait:
            await gate(wait)
    except asyncio.CancelledError:
        tell(f"stopped {ctx.identity.run_id} {ctx.call_id} {time.time()}")
        raise
    tell(f"mark {ctx.identity.run_id} {ctx.call_id}")
    crash_here("in_pool")
    return name


@tool(role=POOL)
def grind(ctx: ToolCallContext, wait: str) -> bool:
    """Work in a thread until a gate opens, or somebody stops it."""
    _note(ctx, "grind")
    while not (home() / f"gate-{wait}").exists():
        if ctx.is_cancelled:
            tell(f"stopped {ctx.identity.run_id} {ctx.call_id} {time.time()}")
            return False
        time.sleep(0.01)
    return True


@tool(role=POOL)
async def double(n: int) -> int:
    """Double a number; needs nothing of its run."""
    return 2 * n


@tool(role=POOL, states=(Sum,))
async def enter(ctx: ToolCallContext, n: int) -> ToolExecutionEffect:
    """Add to a number that all calls share."""
    _note(ctx, "enter")
    before = ctx.scoped_state_of(Sum).value
    done = ToolResult.success("enter", {"before": before, "attempt": ctx.attempt})
    return ToolExecutionEffect(done, (AnyStateAction.new(Sum, n), AddSystemReminder(f"entered {n}")))


@tool(states=(Sum,))
async def enter_here(ctx: ToolCallContext, n: int) -> ToolExecutionEffect:
    """Add to the number that all calls share, in the agent's own worker."""
    _note(ctx, "enter_here")
    done = ToolResult.success("enter_here", {"before": ctx.scoped_state_of(Sum).value, "attempt": ctx.attempt})
    return ToolExecutionEffect(done, (AnyStateAction.new(Sum, n),))


@tool(role=POOL, repeatable=False, states=(Sum,))
async def enter_once(ctx: ToolCallContext, n: int) -> ToolExecutionEffect:
    """Add to the number that all calls share, never twice for one call."""
    _note(ctx, "enter_once")
    return ToolExecutionEffect(ToolResult.success("enter_once", n), (AnyStateAction.new(Sum, n),))


@tool(role=POOL, repeatable=False)
async def launch(ctx: ToolCallContext) -> str:
    """Do what must not be done twice."""
    _note(ctx, "launch")
    crash_here("in_launch")
    return "up"


@tool(role=POOL, states=(Ballots,))
async def ballot(ctx: ToolCallContext, n: int) -> ToolExecutionEffect:
    """Add votes to a counter that joins, and queue a message."""
    ctx.add_message(ContextMessage("noted", f"noted {n}", target=Target.CONVERSATION))
    return ToolExecutionEffect(ToolResult.success("ballot", n), (AnyStateAction.new(Ballots, n),))


@tool(role=POOL, timeout=0.2, retry=ToolRetry(attempts=2, wait=0.01))
async def slow(ctx: ToolCallContext) -> str:
    """Take longer than it may, twice."""
    _note(ctx, "slow")
    await asyncio.sleep(30)
    return "never"


@tool(role=POOL)
async def fails(how: str) -> Any:
    """Fail in one of several ways."""
    if how == "raise":
        raise RuntimeError("it broke")
    if how == "error":
        return ToolResult.error("fails", "it said no", code="no")
    if how == "phase":
        return ToolExecutionEffect(ToolResult.success("fails"), ("what is this",))  # type: ignore[arg-type]
    return "x" * int(how)


@tool
async def long_text(size: int) -> str:
    """Give a text in this process."""
    return "x" * size


@tool(role=POOL)
async def asks(ctx: ToolCallContext) -> ToolResult:
    """Ask first, then do it."""
    _note(ctx, "asks")
    ctx.keep({"seen": (ctx.scratch or {}).get("seen", 0) + 1})
    if ctx.resume_input is None:
        return ToolResult.suspended("asks", "really?")
    return ToolResult.success("asks", {"by": ctx.resume_input.result, "scratch": ctx.scratch})


@tool(role=POOL, sees="thread")
async def recall(ctx: ToolCallContext, pad: str = "") -> list[str]:
    """Give the roles of the conversation."""
    return [message.role.value for message in ctx.messages]


@tool(role=POOL)
async def peek(ctx: ToolCallContext) -> int:
    """Look for the conversation without having asked for it."""
    return len(ctx.messages)


@tool(role="nowhere")
async def lost() -> str:
    """Run in a pool that has no worker."""
    return "found"


POOLED = (crunch, grind, double, enter, enter_once, launch, ballot, slow, fails, asks, recall, peek, lost)


def heavy_definitions(role: str) -> list[AgentDefinition]:
    """Give an agent of each tool mode, one with a permission gate, one with a deadline."""
    tools = (*POOLED, add, hold, mark, pay, long_text, enter_here)

    def smith(name: str, **more: Any) -> AgentDefinition:
        return AgentDefinition(id=f"{name}.{role}", model="listed", tools=tools, max_rounds=0, **more)

    return [
        smith("smith"),
        smith("liner", tool_execution_mode=ToolExecutionMode.SEQUENTIAL),
        smith("batcher", tool_execution_mode=ToolExecutionMode.PARALLEL_BATCH_APPROVAL),
        smith("careful", behaviors=(Permissions(("ask crunch", "deny double"), default="allow"),)),
        smith("hurried", deadline=1.0),
        smith("sender", sub_agents=tuple(SubAgentSpec(one, "follows a list") for one in ("clerk.beta", "smith.alpha"))),
    ]
