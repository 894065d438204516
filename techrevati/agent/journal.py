"""Ports that record what models and tools answered, and answer it again when a step is taken again.

    step ──▶ JournaledModel, JournaledTools ──key──▶ Journal: known? give it : do it, keep it, give it

With ids from `DerivedIds` and an inbox that is given whole (`GivenInbox`), a step that died is taken again
without a second call of anything whose answer was kept, and stores the same messages under the same ids.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from techrevati.agent.loop.ports import ToolRunner
from techrevati.agent.loop.tool_runs import ToolRun, decode_run, encode_run
from techrevati.agent.model import (
    CallStarted,
    ErrorClass,
    InferenceError,
    ModelPort,
    ModelRequest,
    OnEvent,
    Received,
    StreamEvent,
    StreamResult,
    TextPiece,
)
from techrevati.agent.state.wiring import ActionRegistry
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import Tool

JsonObject = dict[str, Any]


class Journal(Protocol):
    """Keeps the results (JSON) of one step's side effects until the step is committed."""

    async def once(self, key: str, work: Callable[[], Awaitable[JsonObject]]) -> JsonObject:
        """Give what is kept under `key`; else do `work`, keep what it gives, and give it."""
        ...


class JournaledModel:
    """Records each attempt, failed ones too, by their order in the step.  A replay streams nothing."""

    def __init__(self, model: ModelPort, journal: Journal) -> None:
        self._model, self._journal, self._asked = model, journal, 0

    async def infer(self, request: ModelRequest, on_event: OnEvent) -> StreamResult:
        self._asked += 1
        recorded = await self._journal.once(f"model:{self._asked}", lambda: self._attempt(request, on_event))
        if "error" in recorded:
            raise _read_error(recorded["error"])
        return msgspec.convert(recorded["answer"], StreamResult)

    async def _attempt(self, request: ModelRequest, on_event: OnEvent) -> JsonObject:
        text: list[str] = []
        started: list[str] = []

        def listen(piece: StreamEvent) -> None:
            if isinstance(piece, TextPiece):
                text.append(piece.text)
            elif isinstance(piece, CallStarted):
                started.append(piece.id)
            on_event(piece)

        try:
            return {"answer": msgspec.to_builtins(await self._model.infer(request, listen))}
        except InferenceError as error:
            return {"error": _write_error(error, error.received or Received("".join(text), bool(started)))}


def _write_error(error: InferenceError, received: Received) -> JsonObject:
    return {
        "message": error.message,
        "type": error.type,
        "error_class": None if error.error_class is None else error.error_class.value,
        "received": msgspec.to_builtins(received),
        "retry_after_ms": error.retry_after_ms,
    }


def _read_error(recorded: JsonObject) -> InferenceError:
    kind = recorded["error_class"]
    return InferenceError(
        recorded["message"],
        recorded["type"],
        None if kind is None else ErrorClass(kind),
        msgspec.convert(recorded["received"], Received),
        recorded["retry_after_ms"],
    )


def call_key(ctx: ToolCallContext) -> str:
    """Name one execution of a call: by its id, its attempt and the decision it was resumed with."""
    decision = ctx.resume_input.decision_id if ctx.resume_input is not None else ""
    return f"{ctx.call_id}:{ctx.attempt}:{decision}"


class JournaledTools:
    """Records each execution by its `call_key`."""

    def __init__(self, tools: ToolRunner, journal: Journal, states: ActionRegistry) -> None:
        self._tools, self._journal, self._states = tools, journal, states

    async def run(self, tool: Tool, arguments: Any, ctx: ToolCallContext) -> ToolRun:
        async def work() -> JsonObject:
            return encode_run(await self._tools.run(tool, arguments, ctx))

        return decode_run(await self._journal.once(f"tool:{call_key(ctx)}", work), self._states)
