"""What a step of the agent loop is given, on a fleet: the turn's model, journal and events.

    step ──▶ FleetModel ─▶ turn.model     step ──▶ TurnJournal ─▶ turn.step     step ──▶ TurnSink ─▶ emit, delta

What the store itself cannot do (a lost lease, no Redis) is no failure of the run: it passes through the loop as
`Through` and ends the turn, not the run.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from techrevati.agent.events import (
    STREAMED,
    ActivityDelta,
    ActivitySnapshot,
    AnyEvent,
    ReasoningEncryptedValue,
    RunStart,
    StepStart,
    TextDelta,
)
from techrevati.agent.loop.ports import GivenInbox, Inbound
from techrevati.agent.model import (
    CallPiece,
    CallStarted,
    EncryptedReasoning,
    ErrorClass,
    InferenceError,
    ModelRequest,
    OnEvent,
    ReasoningPiece,
    StopReason,
    StreamResult,
    TextPiece,
    TokenUsage,
)
from techrevati.agent.suspension import ToolCallDecision
from techrevati.agent.threads.changeset import ThreadChangeSet
from techrevati.agent.threads.message import Message, Role, ToolCall
from techrevati.agent.tools import ToolDescriptor
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.models import ModelReply, RetryLater
from techrevati.fleet.outcome import Parked
from techrevati.fleet.turn import Turn
from techrevati.runtime.errors import TechrevatiError
from techrevati.store.errors import StoreError

JsonObject = dict[str, Any]

_STOPS = {
    "stop": StopReason.END_TURN,
    "length": StopReason.MAX_TOKENS,
    "tool_calls": StopReason.TOOL_USE,
    "stop_sequence": StopReason.STOP_SEQUENCE,
}
_CLASSES = {
    "rate_limit": ErrorClass.RATE_LIMIT,
    "llm_timeout": ErrorClass.TIMEOUT,
    "dependency_failed": ErrorClass.CONNECTION,
    "llm_error": ErrorClass.SERVER_ERROR,
}


class Through(BaseException):
    """Carries a fault of the store through the loop, which would make a failure of the run of it."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(error)
        self.error = error


class TurnJournal:
    """Keeps results until the turn commits; a turn that runs again is given them."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    async def once(self, key: str, work: Callable[[], Awaitable[JsonObject]]) -> JsonObject:
        try:
            kept: JsonObject = await self._turn.step(key, work)
        except StoreError as error:
            raise Through(error) from error
        return kept


class TurnInbox:
    """What came for the run before the turn; and what its user says while a model gives what may be its last answer."""

    def __init__(self, turn: Turn, decisions: Sequence[ToolCallDecision], steering: Sequence[str]) -> None:
        self._turn, self._given = turn, GivenInbox(decisions, steering)
        self._late: list[str] = []

    async def look(self) -> None:
        """Read what was said since the turn began; without a store there is nothing to read."""
        with contextlib.suppress(StoreError):
            self._late += [str(said["content"]) for said in await self._turn.hear()]

    def take(self) -> Inbound:
        given, late = self._given.take(), tuple(self._late)
        self._late.clear()
        return Inbound(given.decisions, given.steering + late)

    async def wait(self) -> None:
        await self._given.wait()


class FleetModel:
    """Calls models through the turn: its gates, its budget, its journal.  Attempts that failed are kept, too."""

    def __init__(self, turn: Turn, timeout: float, inbox: TurnInbox | None = None) -> None:
        self._turn, self._timeout, self._inbox = turn, timeout, inbox
        self._journal, self._asked = TurnJournal(turn), 0

    async def infer(self, request: ModelRequest, on_event: OnEvent) -> StreamResult:
        self._asked += 1
        key, got = str(self._asked), list[ModelReply]()

        async def attempt() -> JsonObject:
            try:
                got.append(await self._call(request, key, on_event))
            except ModelFailed as error:
                return _written(error)
            except TimeoutError:
                return {"message": f"no answer in {self._timeout:g} s", "class": ErrorClass.TIMEOUT.value}
            return {}

        kept = await self._journal.once(f"attempt:{key}", attempt)
        if kept:
            after = kept.get("retry_after_ms")
            raise InferenceError(
                kept["message"], kept.get("type", "llm_exec_error"), ErrorClass(kept["class"]), None, after
            )
        reply = got[0] if got else await self._call(request, key, on_event)  # a replay: the turn has the answer
        if (
            self._inbox is not None and not reply.tool_calls
        ):  # the run may end with it, and what was said to a live run is answered
            await self._inbox.look()
        return _result(reply)

    async def _call(self, request: ModelRequest, key: str, on_event: OnEvent) -> ModelReply:
        options = dict(request.options)
        if request.tools:
            options["tools"] = [_tool(tool) for tool in request.tools]
        if request.prompt_cache:
            options["prompt_cache"] = True
        try:
            return await self._turn.model(
                request.model,
                [chat_message(message) for message in request.messages],
                timeout=self._timeout,
                on_event=lambda kind, data: _tell(on_event, kind, data),
                key=key,
                **options,
            )
        except RetryLater as error:
            raise Parked(error.seconds, f"model:{error.name}") from error
        except StoreError as error:
            raise Through(error) from error


def _written(error: ModelFailed) -> JsonObject:
    kind = ErrorClass.AUTH if error.account else _CLASSES.get(error.failure, ErrorClass.CLIENT_REQUEST)
    written: JsonObject = {"message": str(error), "class": kind.value}
    if error.spoke:
        written["type"] = "llm_stream_event_error"
    if error.retry_after is not None:
        written["retry_after_ms"] = round(error.retry_after * 1000)
    return written


def _tell(on_event: OnEvent, kind: str, data: Any) -> None:
    match kind:
        case "text_delta":
            on_event(TextPiece(data["text"]))
        case "reasoning_delta":
            on_event(ReasoningPiece(data["text"]))
        case "reasoning_encrypted":
            on_event(EncryptedReasoning(data["value"]))
        case "tool_call_start":
            on_event(CallStarted(data["id"], data["name"]))
        case "tool_call_delta":
            on_event(CallPiece(data["id"], data["arguments"]))


def _tool(tool: ToolDescriptor) -> JsonObject:
    function = {"name": tool.id, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def chat_message(message: Message) -> JsonObject:
    """Give a message in the shape that model clients take (`fleet.chat`)."""
    said: JsonObject = {"role": message.role.value, "content": message.content}
    if message.tool_calls:
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        said["tool_call_id"] = message.tool_call_id
    return said


def _result(reply: ModelReply) -> StreamResult:
    asked = tuple(ToolCall(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in reply.tool_calls)
    return StreamResult(reply.text, asked, _usage(reply), _STOPS.get(reply.stop_reason), reply.model or None)


def _usage(reply: ModelReply) -> TokenUsage | None:
    total = reply.input_tokens + reply.output_tokens
    if not total:
        return None  # the provider told nothing, which is how the loop knows an empty stream from a short answer
    return TokenUsage(
        prompt_tokens=reply.input_tokens,
        completion_tokens=reply.output_tokens,
        total_tokens=total,
        cache_read_tokens=reply.cache_read_tokens or None,
        cache_creation_tokens=reply.cache_write_tokens or None,
        thinking_tokens=reply.reasoning_tokens or None,
    )


class TurnSink:
    """Tells the loop's events as the run's: deltas now, everything else with the turn's commit.

    What deltas belong to (the run, the step) is told ahead of them as well, so that who follows can place them; and
    what is no delta of a token is kept with the commit too: of an activity, its last state.  Pieces of text are left
    out: the turn's model tells them itself, as ``text.delta``.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._activities: dict[tuple[str, str], int] = {}

    def emit(self, event: AnyEvent, step_id: str | None) -> None:
        if isinstance(event, TextDelta):
            return
        data: JsonObject = msgspec.to_builtins(event)
        kind = data.pop("type")
        if step_id is not None:
            data["step_id"] = step_id
        if isinstance(event, (*STREAMED, RunStart, StepStart)):
            self._turn.delta(kind, data)
        if isinstance(event, ActivitySnapshot) and event.replace:
            self._keep_last((event.message_id, event.activity_type), kind, data)
        elif isinstance(event, ActivitySnapshot | ActivityDelta | ReasoningEncryptedValue) or not isinstance(
            event, STREAMED
        ):
            self._turn.emit(kind, data)

    def _keep_last(self, of: tuple[str, str], kind: str, data: JsonObject) -> None:
        told = self._turn.events
        self._turn.emit(kind, data)
        if of in self._activities:
            told[self._activities[of]] = told.pop()
        else:
            self._activities[of] = len(told) - 1


class TurnCommitter:
    """Lets the loop commit as often as it likes: what it made is durable when the turn is, all of it or nothing."""

    async def commit(self, thread_id: str, changeset: ThreadChangeSet, expected: int) -> int:
        return expected + 1


class UnreadableMessage(TechrevatiError):
    """A message of the thread is none that the agent loop can read."""

    def __init__(self, place: int, cause: str) -> None:
        super().__init__(place, cause)
        self.place, self.cause = place, cause

    def __str__(self) -> str:
        return f"message {self.place} of the thread cannot be read: {self.cause}; fix: role, content, tool_calls"


def loop_message(said: JsonObject, place: int) -> Message:
    """Read a stored message: the loop's own form, or the chat form that other agents and clients write.

    Raises:
        UnreadableMessage.
    """
    known = dict(said)
    known.setdefault("id", f"m{place}")
    content = known.get("content")
    known["content"] = (
        content if isinstance(content, str) else "" if content is None else msgspec.json.encode(content).decode()
    )
    known["role"] = known["role"] if known.get("role") in list(Role) else Role.USER.value
    known["tool_calls"] = [_call(call) for call in known.get("tool_calls") or ()]
    try:
        return msgspec.convert(known, Message)
    except (msgspec.ValidationError, KeyError, TypeError) as error:
        raise UnreadableMessage(place, str(error)) from error


def _call(call: JsonObject) -> JsonObject:
    if "function" not in call:
        return call
    arguments = call["function"]["arguments"]
    read = msgspec.json.decode(arguments) if isinstance(arguments, str) and arguments else arguments
    return {"id": call["id"], "name": call["function"]["name"], "arguments": read}
