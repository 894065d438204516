"""A model that says what it was told to say, and a world to run agents in."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.building import build
from techrevati.agent.definition import AgentDefinition
from techrevati.agent.driver import Driver
from techrevati.agent.loop.outcome import Finished, Suspended
from techrevati.agent.model import (
    CallPiece,
    CallStarted,
    InferenceError,
    ModelRequest,
    OnEvent,
    StopReason,
    StreamResult,
    TextPiece,
    TokenUsage,
)
from techrevati.agent.running import RunStream
from techrevati.agent.suspension import ResumeAction, ToolCallDecision
from techrevati.agent.threads.ids import uuid7
from techrevati.agent.threads.memory import InMemoryThreadStore
from techrevati.agent.threads.message import Message, Role, ToolCall
from techrevati.agent.threads.runs import RunRequest
from techrevati.agent.threads.thread import Thread

START = 1_700_000_000_000

Reply = str | StreamResult | Exception | Callable[[ModelRequest, OnEvent], Any]


def calls(*wanted: tuple[str, str, Any], text: str = "", usage: TokenUsage | None = None) -> StreamResult:
    """Give an answer that calls tools: (id, name, arguments)."""
    return StreamResult(text, tuple(ToolCall(*call) for call in wanted), usage, StopReason.TOOL_USE)


def said(text: str, *, stop: StopReason = StopReason.END_TURN, usage: TokenUsage | None = None) -> StreamResult:
    return StreamResult(text, (), usage, stop)


class Script:
    """Answers in order; each reply is streamed before it is given."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self.requests: list[ModelRequest] = []

    async def infer(self, request: ModelRequest, on_event: OnEvent) -> StreamResult:
        self.requests.append(request)
        if not self._replies:
            raise AssertionError(f"the model was asked {len(self.requests)} times, once too often")
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if callable(reply):
            answer = reply(request, on_event)
            result: StreamResult = await answer if asyncio.iscoroutine(answer) else answer
            return result
        result = said(reply) if isinstance(reply, str) else reply
        if result.text:
            on_event(TextPiece(result.text))
        for call in result.tool_calls:
            on_event(CallStarted(call.id, call.name))
            on_event(CallPiece(call.id, msgspec.json.encode(call.arguments).decode()))
        return result

    @property
    def left(self) -> int:
        return len(self._replies)


def broken(text: str = "", *, call: str | None = None, then: InferenceError) -> Reply:
    """Stream a piece of an answer, then fail."""

    def reply(request: ModelRequest, on_event: OnEvent) -> StreamResult:
        if text:
            on_event(TextPiece(text))
        if call is not None:
            on_event(CallStarted(call, "add"))
        raise then

    return reply


class Clock:
    """Stands still until it is moved; sleeping moves it."""

    def __init__(self) -> None:
        self.ms = START
        self.slept: list[float] = []

    def __call__(self) -> int:
        return self.ms

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ms += round(seconds * 1000)
        await asyncio.sleep(0)


def counted_ids() -> Callable[[], str]:
    count = iter(range(1, 1 << 20))
    return lambda: uuid7(START, next(count))


class World:
    """A store, a clock and a driver around scripted models."""

    def __init__(self, model: Any, *definitions: AgentDefinition, store: Any = None, **ports: Any) -> None:
        self.clock = Clock()
        self.model = model
        self.store: Any = store or InMemoryThreadStore(clock=self.clock)
        self.agents = {d.id: build(d) for d in definitions}
        self.driver = Driver(
            self.store,
            model,
            self.agents.values(),
            **{
                "now_ms": self.clock,
                "sleep": self.clock.sleep,
                "chance": lambda: 0.5,
                "new_id": counted_ids(),
                "cancel_grace": 0.05,
                **ports,
            },
        )

    async def start(self, text: str | None = "hello", *, thread: str = "t", **options: Any) -> RunStream:
        agent_id = options.pop("agent", next(iter(self.agents)))
        driver_options = {k: options.pop(k) for k in ("policy", "mode", "on_suspend") if k in options}
        messages = (Message.user(text),) if text is not None else ()
        request = RunRequest(agent_id=agent_id, thread_id=thread, messages=messages, **options)
        return await self.driver.start(request, **driver_options)

    async def run(self, text: str | None = "hello", **options: Any) -> tuple[Finished | Suspended, list[Any]]:
        """Run to the end; give the outcome and every event."""
        stream = await self.start(text, **options)
        async with asyncio.timeout(10):
            events = [envelope async for envelope in stream.events]
            return await stream.result(), events

    async def thread(self, thread: str = "t") -> Thread:
        found: Thread | None = await self.store.load_thread(thread)
        assert found is not None
        return found

    async def state(self, thread: str = "t") -> dict[str, Any]:
        return (await self.thread(thread)).rebuild_state(next(iter(self.agents.values())).states.lattices)


def agent(**options: Any) -> AgentDefinition:
    return AgentDefinition(**{"id": "a", "model": "m", "instructions": "Be good.", **options})


def types(events: Iterable[Any]) -> list[str]:
    return [envelope.event.type for envelope in events]


def of_type(events: Iterable[Any], kind: type[Any]) -> list[Any]:
    return [envelope.event for envelope in events if isinstance(envelope.event, kind)]


def tool_results(messages: Iterable[Message]) -> dict[str, dict[str, Any]]:
    """Give the latest result per call id, placeholders left out."""
    found = {}
    for message in messages:
        if message.role is Role.TOOL and message.metadata.get("mark") != "awaiting":
            found[str(message.tool_call_id)] = msgspec.json.decode(message.content)
    return found


def resume(target: str, result: Any = True, *, id: str | None = None) -> ToolCallDecision:
    return ToolCallDecision(target, id or f"d:{target}", ResumeAction.RESUME, result)


def cancel(target: str, reason: str | None = None) -> ToolCallDecision:
    return ToolCallDecision(target, f"d:{target}", ResumeAction.CANCEL, None, reason)


class Recorder(AgentBehavior):
    """Notes each phase it sees."""

    def __init__(self, log: list[str], id: str = "recorder") -> None:
        self.id, self.log = id, log


def _noting(phase: str) -> Any:
    async def hook(self: Recorder, ctx: Any) -> None:
        at = f":{ctx.tool_call_id}" if ctx.tool_call_id else ""
        self.log.append(f"{phase}{at}")

    return hook


for _phase in (
    "run_start",
    "step_start",
    "before_inference",
    "after_inference",
    "step_end",
    "before_tool_execute",
    "after_tool_execute",
    "run_end",
):
    setattr(Recorder, _phase, _noting(_phase))


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
