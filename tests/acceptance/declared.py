"""Declared agents for the acceptance tests, and a model that does what the user's message lists.

A user says a JSON list of commands; the model makes one tool call per answer, in order, and ends with the results.
A command that is a list of commands is a batch: all of its calls in one answer.
"""

import asyncio
import json
import os
from typing import Any

from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.definition import AgentDefinition, OutputSpec, SubAgentSpec, ToolExecutionMode
from techrevati.agent.stopping import MaxRounds
from techrevati.agent.suspension import PendingToolCall, ResumeMode, SuspendTicket, Suspension
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolResult
from techrevati.agent.typed_tool import tool
from techrevati.fleet.models import ModelReply, ModelRequest
from tests.acceptance.diary import gate, tell
from tests.acceptance.seams import armed, crash_here, passed


class ListedModel:
    """Follows the commands of the last user message that is a list; says back what is not."""

    async def complete(self, request: ModelRequest) -> ModelReply:
        said = request.messages
        at = max(place for place, message in enumerate(said) if message["role"] == "user" and _is_list(message))
        commands, after = json.loads(said[at]["content"]), said[at + 1 :]
        tell(f"asked {len(after)} {commands}")
        heard = [message["content"] for message in after if message["role"] == "user"]
        done = sum(1 for message in after if message["role"] == "assistant" and message.get("tool_calls"))
        on_event = request.options.get("on_event") or (lambda kind, data: None)
        if done < len(commands):
            batch = commands[done] if isinstance(commands[done][0], list) else [commands[done]]
            batch = json.loads(json.dumps(batch).replace("$child", _child(after)))
            made = []
            for place, (name, *words) in enumerate(batch):
                function = {"name": name, "arguments": json.dumps(words[0] if words else {})}
                made.append({"id": f"{len(said) + place}-{name}", "type": "function", "function": function})
                on_event("tool_call_start", {"index": place, "id": made[-1]["id"], "name": name})
            return ModelReply("", 10, 2, 5, request.model, made, "tool_calls")
        results = [_result(message["content"]) for message in after if message["role"] == "tool"]
        text = json.dumps({"results": [one.get("data") for one in results], "heard": heard})
        request.options["on_delta"](text)
        return ModelReply(text, 10, 8, 7, request.model, stop_reason="stop")


def _child(said: list[dict[str, Any]]) -> str:
    """Give the run id of the first sub-agent that a tool's result names."""
    found = (_result(one["content"]).get("data") for one in said if one["role"] == "tool")
    return next((str(data["run_id"]) for data in found if isinstance(data, dict) and "run_id" in data), "")


def _is_list(message: dict[str, Any]) -> bool:
    return str(message["content"]).startswith("[")


def _result(content: str) -> Any:
    return json.loads(content) if content.startswith("{") else {"data": content}  # a note that the call waits


@tool
async def add(ctx: ToolCallContext, a: int, b: int) -> int:
    """Add two numbers."""
    tell(f"add {ctx.identity.run_id} {a} {b} {os.getpid()}")
    return a + b


@tool
async def hold(ctx: ToolCallContext, name: str) -> str:
    """Wait at a gate."""
    tell(f"held {ctx.identity.run_id} {name} {os.getpid()}")
    await gate(name)
    return name


@tool
async def pay(ctx: ToolCallContext, amount: int) -> ToolResult:
    """Pay, once somebody has said yes."""
    if ctx.resume_input is None:
        return ToolResult.suspended("pay", f"pay {amount}?")
    tell(f"payed {ctx.identity.run_id} {amount}")
    return ToolResult.success("pay", {"paid": amount, "by": ctx.resume_input.result})


def _ticket(ctx: ToolCallContext, mode: ResumeMode, arguments: dict[str, Any]) -> SuspendTicket:
    asked = Suspension(f"ask-{ctx.call_id}", f"tool:{ctx.tool_name}")
    return SuspendTicket(asked, PendingToolCall(f"shown-{ctx.call_id}", ctx.tool_name, arguments), mode)


@tool
async def choose(ctx: ToolCallContext, of: str) -> ToolResult:
    """Let somebody else say what the result is."""
    tell(f"choose {ctx.identity.run_id} {ctx.call_id}")
    return ToolResult.suspended("choose", "which?", _ticket(ctx, ResumeMode.AS_RESULT, {"of": of}))


@tool
async def amend(ctx: ToolCallContext, text: str) -> ToolResult:
    """Let somebody else say what the arguments are."""
    if ctx.resume_input is None:
        return ToolResult.suspended("amend", "so?", _ticket(ctx, ResumeMode.AS_ARGUMENTS, {"text": text}))
    tell(f"amended {ctx.identity.run_id} {text}")
    return ToolResult.success("amend", {"text": text})


@tool
async def wait_a_little(seconds: float) -> float:
    """Let time pass."""
    await asyncio.sleep(seconds)
    return seconds


@tool
async def mark(ctx: ToolCallContext, name: str) -> str:
    """Leave a mark; a worker may die between making and keeping it."""
    tell(f"mark {ctx.identity.run_id} {ctx.call_id}")
    crash_here("in_tool")
    return name


@tool
async def late_mark(ctx: ToolCallContext, name: str) -> str:
    """Leave a mark; where a worker is to die between two tools of a batch, only once the other is in the journal."""
    kept = passed("after_step")
    while armed("between_tools") and passed("after_step") == kept:
        await asyncio.sleep(0.01)
    crash_here("between_tools")
    tell(f"mark {ctx.identity.run_id} {ctx.call_id}")
    return name


class Farewell(AgentBehavior):
    """Tells how a run ended; a worker may die at it."""

    id = "farewell"

    async def run_end(self, ctx: ReadOnlyContext) -> None:
        tell(f"farewell {ctx.identity.run_id} {ctx.document['__run']['done_reason']}")
        crash_here("in_run_end")


TOOLS = (add, hold, pay, choose, amend, wait_a_little, mark, late_mark)
ANSWER = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}


def definitions(role: str, peer: str) -> list[AgentDefinition]:
    """Give the agents of a role; its clerk may send out the peer's."""
    mine = AgentDefinition(
        id=f"clerk.{role}",
        model="listed",
        instructions="Do what is listed.",
        tools=TOOLS,
        sub_agents=(SubAgentSpec(f"clerk.{peer}", "does what is listed"),) if peer else (),
    )
    return [
        mine,
        AgentDefinition(
            id=f"chief.{role}",
            model="listed",
            tools=TOOLS,
            sub_agents=(SubAgentSpec(f"clerk.{role}", "does what is listed"),),
        ),
        AgentDefinition(
            id=f"batch.{role}",
            model="listed",
            tools=TOOLS,
            tool_execution_mode=ToolExecutionMode.PARALLEL_BATCH_APPROVAL,
        ),
        AgentDefinition(
            id=f"polite.{role}",
            model="listed",
            tools=TOOLS,
            behaviors=(Farewell(),),
            sub_agents=(SubAgentSpec(f"clerk.{role}", "does what is listed"),),
        ),
        AgentDefinition(id=f"tireless.{role}", model="listed", tools=TOOLS, max_rounds=0),
        AgentDefinition(id=f"brief.{role}", model="listed", tools=TOOLS, stop_conditions=(MaxRounds(2),)),
        AgentDefinition(id=f"total.{role}", model="listed", tools=TOOLS, output=OutputSpec(ANSWER)),
        AgentDefinition(id=f"short.{role}", model="listed", tools=TOOLS, suspension_timeout=1.0),
    ]
