"""The pool's side of a tool that has a role: one call is one run of one turn, and its result is the run's output.

    PoolCall (input) ─▶ ToolCallContext ─▶ the tool ─▶ ToolRun, as JSON (output)
                              └─ progress, activity ─▶ the stream of the run that made the call

The commit of that turn is the call's journal: a worker that dies before it has another run the tool again, under the
same idempotency key.
"""

import asyncio
import logging
import math
from typing import Any

import msgspec

from techrevati.agent.actions import WrongPhase
from techrevati.agent.cancellation import Cancellation
from techrevati.agent.context import RunIdentity
from techrevati.agent.events import ActivitySnapshot
from techrevati.agent.ids import DerivedIds
from techrevati.agent.loop.progress import Caller, listeners
from techrevati.agent.loop.tool_runs import NotRecordable, ToolRun, encode_run, run_tool
from techrevati.agent.policy import RunPolicy
from techrevati.agent.suspension import ToolCallResume
from techrevati.agent.threads.message import Message
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import Tool, ToolError, ToolResult, role_of
from techrevati.agent.typed_tool import ToolRetry
from techrevati.fleet.agents import Agent
from techrevati.fleet.codec import encode
from techrevati.fleet.loop_ports import TurnSink, loop_message
from techrevati.fleet.outcome import Outcome
from techrevati.fleet.turn import Turn
from techrevati.runtime.errors import TechrevatiError
from techrevati.store.errors import NotJson, PayloadTooLarge, StepInDoubt
from techrevati.store.keys import CALL_PREFIX

log = logging.getLogger(__name__)

JsonObject = dict[str, Any]
SLACK = 60.0
"""Seconds a call's turn may take beyond all the tool's own attempts."""


class Conversation(msgspec.Struct, frozen=True):
    """Where the messages of a call's run are: the first `stored` of its thread at a version, and those after them."""

    version: int
    stored: int
    added: tuple[Message, ...]


class PoolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What goes along with a call to the pool of its tool; a tool without a context gets its arguments only."""

    tool: str
    call_id: str
    arguments: Any
    identity: RunIdentity
    policy: RunPolicy
    document: JsonObject = {}
    conversation: Conversation | None = None
    resume: ToolCallResume | None = None
    scratch: Any = None
    attempt: int = 1
    started_at_ms: int = 0
    deadline_ms: int | None = None
    depth: int = 0


class NotSent:
    """The messages that did not come along: whoever reads them is told how they would."""

    def __init__(self, tool: str) -> None:
        self._tool = tool

    def _refuse(self) -> ToolError:
        return ToolError(f"the messages were not sent to the pool of {self._tool!r}; fix: @tool(…, sees='thread')")

    def __getitem__(self, place: Any) -> Any:
        raise self._refuse()

    def __len__(self) -> int:
        raise self._refuse()


def agent_of(tool: Tool) -> Agent:
    """Give what serves the calls of a tool in the pool of its role."""
    role = role_of(tool)
    assert role is not None, f"tool {tool.descriptor.id!r} has no role"
    return Agent(
        name=f"{CALL_PREFIX}{tool.descriptor.id}",
        role=role,
        function=_carried_out_by(tool),
        is_async=True,
        timeout=_limit(tool),
    )


def _limit(tool: Tool) -> float:
    """Say how long a call's turn may take: as long as the tool itself says, in all its attempts."""
    timeout, retry = getattr(tool, "timeout", None), getattr(tool, "retry", None) or ToolRetry()
    if timeout is None:
        return math.inf
    return float(timeout * retry.attempts + retry.wait * (2 ** (retry.attempts - 1) - 1) + SLACK)


def _carried_out_by(tool: Tool) -> Any:
    async def carry_out(turn: Turn) -> Outcome:
        turn.messages.added.clear()  # a call is no conversation
        call = msgspec.convert(turn.input, PoolCall)

        async def run() -> JsonObject:
            return encode_run(held_to(await _run(tool, call, turn), turn.max_payload))

        try:
            if tool.repeatable:
                return turn.complete(await run())
            return turn.complete(await turn.step("run", run, policy="once"))
        except StepInDoubt:
            text = "a worker died while it ran, and it must not run twice: whether it took effect is not known"
            return turn.complete(encode_run(ToolRun(ToolResult.error(call.tool, text, code="in_doubt"))))
        except WrongPhase as error:
            return turn.fail(str(error), {"wrong_phase": [error.source, error.action, error.phase, error.why]})

    return carry_out


async def _run(tool: Tool, call: PoolCall, turn: Turn) -> ToolRun:
    cancellation, sink = Cancellation(), TurnSink(turn)

    def show(event: ActivitySnapshot) -> None:
        try:
            sink.emit(event, None)
        except TechrevatiError as error:  # what a call shows must not harm it
            log.warning("run %s: %s", turn.run_id, error)

    messages: Any = NotSent(call.tool)
    if call.conversation is not None:
        messages = await _messages(turn, call.identity.thread_id, call.conversation)
    ctx = ToolCallContext(
        call_id=call.call_id,
        tool_name=call.tool,
        identity=call.identity,
        policy=call.policy,
        document=call.document,
        messages=messages,
        resume_input=call.resume,
        scratch=call.scratch,
        attempt=call.attempt,
        started_at_ms=call.started_at_ms,
        deadline_ms=call.deadline_ms,
        depth=call.depth,
        new_id=DerivedIds(f"{call.identity.run_id}:{call.call_id}", call.started_at_ms),
        cancellation=cancellation,
        **listeners(Caller(call.identity, call.call_id, call.tool), show, turn.now_ms),
    )
    try:
        return await run_tool(tool, call.arguments, ctx)
    except asyncio.CancelledError:
        cancellation.cancel()  # the body of a sync tool goes on in its thread until it looks
        raise


async def _messages(turn: Turn, thread_id: str, of: Conversation) -> tuple[Message, ...]:
    said = await turn.children.said(thread_id, of.version, of.stored) if of.stored else []
    return (*(loop_message(one, place) for place, one in enumerate(said)), *of.added)


def held_to(done: ToolRun, limit: int) -> ToolRun:
    """Give an execution, or an error result for the model in place of one that could not be kept.

    A result is kept in a message, as text inside of JSON, and with its actions until its round is over.
    """
    room = limit - min(4096, limit // 4)
    try:
        encode(encode_run(done), "its result, with its actions,", room)
        encode(encode(done.result.to_json(), "its result", room), "its result", room)
    except PayloadTooLarge as error:
        return ToolRun(ToolResult.error(done.result.tool_name, str(error), code="result_too_large"))
    except (NotJson, NotRecordable) as error:
        return ToolRun(ToolResult.error(done.result.tool_name, str(error), code="result_not_json"))
    return done


class HeldTools:
    """Calls tools in this process; a result that could not be kept is an error result."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    async def run(self, tool: Tool, arguments: Any, ctx: ToolCallContext) -> ToolRun:
        return held_to(await run_tool(tool, arguments, ctx), self._limit)
