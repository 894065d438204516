"""One step's model call: attempts, waits, fallback models.

    request ──attempt──▶ answer                          ▶ Answer
                ├─ refused, worth another try ▶ wait, or the next model
                ├─ its stream broke           ▶ Broken: the loop takes it up in the next step
                └─ nothing left to try        ▶ Failed

Every attempt is one `ModelPort.infer`, so a driver that records attempts replays exactly this.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from techrevati.agent import events
from techrevati.agent.loop.ports import Ports
from techrevati.agent.model import (
    CallPiece,
    CallStarted,
    EncryptedReasoning,
    ErrorClass,
    InferenceError,
    ModelRequest,
    ReasoningPiece,
    Received,
    StreamEvent,
    StreamResult,
    TextPiece,
)
from techrevati.agent.retries import Again, GiveUp, LlmRetryPolicy, after_failure
from techrevati.agent.threads.message import ToolCall

Tell = Callable[[events.AnyEvent], None]


@dataclass(frozen=True, slots=True)
class Answer:
    result: StreamResult
    model: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A stream broke after it began, and there is something to do about it in another step."""

    error: InferenceError
    received: Received


@dataclass(frozen=True, slots=True)
class Failed:
    error: InferenceError


class _Listener:
    """Passes one attempt's pieces on as events, and remembers what had arrived."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.text: list[str] = []
        self.calls: list[str] = []

    def __call__(self, piece: StreamEvent) -> None:
        match piece:
            case TextPiece(text):
                self.text.append(text)
                self._tell(events.TextDelta(text))
            case ReasoningPiece(text):
                self._tell(events.ReasoningDelta(text))
            case EncryptedReasoning(value):
                self._tell(events.ReasoningEncryptedValue(value))
            case CallStarted(call_id, name):
                self.calls.append(call_id)
                self._tell(events.ToolCallStart(call_id, name))
            case CallPiece(call_id, text):
                self._tell(events.ToolCallDelta(call_id, text))

    @property
    def received(self) -> Received:
        return Received("".join(self.text), bool(self.calls))

    def take_back(self, message_id: str, reason: str) -> None:
        """Tell whoever followed that these pieces do not stand."""
        for call_id in self.calls:
            self._tell(events.ToolCallCancelled(call_id))
        if self.text or self.calls:
            self._tell(events.StreamReset(message_id, reason))


async def infer(
    ports: Ports,
    request: ModelRequest,
    models: tuple[str, ...],
    policy: LlmRetryPolicy,
    *,
    message_id: str,
    tell: Tell,
    may_take_up: bool,
) -> Answer | Broken | Failed:
    """Call `models` in order until one answers.

    Args:
        message_id: The id the answer will be stored under.
        may_take_up: The run may take up one more broken stream.
    """
    begun, failed = ports.now_ms(), InferenceError("no model is left to try")
    for model in models:
        attempt = 0
        while True:
            attempt += 1
            listener, started = _Listener(tell), ports.now_ms()
            outcome = await _attempt(ports, replace(request, model=model), listener)
            if isinstance(outcome, StreamResult):
                return Answer(_cleaned(outcome, listener, tell), outcome.model or model, ports.now_ms() - started)
            failed = outcome
            received = outcome.received or listener.received
            if outcome.type == "llm_stream_event_error" and outcome.is_retryable and may_take_up:
                if received.call_started or not received.text:
                    listener.take_back(message_id, str(outcome))
                return Broken(outcome, received)
            listener.take_back(message_id, str(outcome))
            decided = after_failure(policy, attempt, outcome, elapsed_ms=ports.now_ms() - begun, chance=ports.chance())
            if isinstance(decided, GiveUp):
                return Failed(
                    InferenceError(f"{outcome.message} ({decided.why})", outcome.type, outcome.error_class, received)
                )
            if not isinstance(decided, Again):
                break
            await ports.sleep(decided.wait_ms / 1000)
    return Failed(failed)


async def _attempt(ports: Ports, request: ModelRequest, listener: _Listener) -> StreamResult | InferenceError:
    try:
        result = await ports.model.infer(request, listener)
    except InferenceError as error:
        return error
    except Exception as error:  # noqa: BLE001  a model client may raise anything; the run decides what becomes of it
        return _as_inference_error(error)
    if result.is_empty:
        return InferenceError(
            "the stream ended with nothing in it", "llm_stream_event_error", ErrorClass.SERVER_ERROR, Received()
        )
    return result


def _as_inference_error(error: Exception) -> InferenceError:
    if isinstance(error, TimeoutError):
        kind = ErrorClass.TIMEOUT
    else:
        kind = ErrorClass.CONNECTION if isinstance(error, OSError) else ErrorClass.UNKNOWN
    return InferenceError(f"{type(error).__name__}: {error}", "llm_exec_error", kind)


def _cleaned(result: StreamResult, listener: _Listener, tell: Tell) -> StreamResult:
    """Drop calls without a name, a second call of one id, and calls whose arguments were cut off."""
    kept: dict[str, ToolCall] = {}
    for call in result.tool_calls:
        arguments, readable = _arguments(call.arguments)
        if call.name.strip() and call.id and readable and call.id not in kept:
            kept[call.id] = ToolCall(call.id, call.name, arguments)
    for call_id in listener.calls:
        if call_id not in kept:
            tell(events.ToolCallCancelled(call_id))
    return msgspec.structs.replace(result, tool_calls=tuple(kept.values()))


def _arguments(given: Any) -> tuple[Any, bool]:
    if given is None or given == "":
        return {}, True
    if not isinstance(given, str):
        return given, True
    try:
        return msgspec.json.decode(given), True
    except msgspec.DecodeError:
        return None, False
