"""The scripted model of the rules' tests, as a model client of a fleet.

turn.model ──chat messages──▶ ScriptedClient ──ModelRequest──▶ Script.infer ──StreamResult──▶ ModelReply
"""

from collections.abc import Callable
from typing import Any

import msgspec

from techrevati.agent.model import (
    CallPiece,
    CallStarted,
    EncryptedReasoning,
    ErrorClass,
    InferenceError,
    ModelRequest,
    ReasoningPiece,
    StopReason,
    StreamEvent,
    StreamResult,
    TextPiece,
)
from techrevati.agent.tools import ToolDescriptor
from techrevati.fleet import models as fleet
from techrevati.fleet.feedback import Feedback
from techrevati.fleet.loop_ports import loop_message
from techrevati.fleet.model_failures import ModelFailed

FAILURES = {
    ErrorClass.RATE_LIMIT: "rate_limit",
    ErrorClass.TIMEOUT: "llm_timeout",
    ErrorClass.CONNECTION: "dependency_failed",
    ErrorClass.SERVER_UNAVAILABLE: "llm_error",
    ErrorClass.SERVER_ERROR: "llm_error",
}
"""The failure class in which a provider's client reports each kind; the others are of the request's own making."""
STOPS = {
    StopReason.END_TURN: "stop",
    StopReason.MAX_TOKENS: "length",
    StopReason.TOOL_USE: "tool_calls",
    StopReason.STOP_SEQUENCE: "stop_sequence",
}


OURS = ("tools", "on_event", "on_delta", "prompt_cache")


class ScriptedClient:
    """Answers a fleet's requests from a script of the rules' tests."""

    def __init__(self, script: Any) -> None:
        self.script = script

    async def complete(self, request: fleet.ModelRequest) -> fleet.ModelReply:
        tell = request.options["on_event"]
        say = request.options["on_delta"]
        asked = ModelRequest(
            request.model,
            tuple(loop_message(said, place) for place, said in enumerate(request.messages)),
            tuple(_descriptor(tool["function"]) for tool in request.options.get("tools", ())),
            {key: value for key, value in request.options.items() if key not in OURS},
            prompt_cache=request.options.get("prompt_cache", False),
        )
        try:
            answer: StreamResult = await self.script.infer(asked, lambda piece: _pass_on(piece, say, tell))
        except InferenceError as error:
            raise _failed(request.model, error) from error
        return _reply(answer)


def _descriptor(function: dict[str, Any]) -> ToolDescriptor:
    name = function["name"]
    return ToolDescriptor(name, description=function["description"], parameters=function["parameters"])


def _pass_on(piece: StreamEvent, say: Callable[[str], None], tell: Callable[[str, dict[str, Any]], None]) -> None:
    match piece:
        case TextPiece(text):
            say(text)
            tell("text_delta", {"text": text})
        case ReasoningPiece(text):
            tell("reasoning_delta", {"text": text})
        case EncryptedReasoning(value):
            tell("reasoning_encrypted", {"value": value})
        case CallStarted(call_id, name):
            tell("tool_call_start", {"index": 0, "id": call_id, "name": name})
        case CallPiece(call_id, text):
            tell("tool_call_delta", {"index": 0, "id": call_id, "arguments": text})


def _failed(model: str, error: InferenceError) -> ModelFailed:
    kind = FAILURES.get(error.error_class or ErrorClass.UNKNOWN, "validation_error")
    wait = None if error.retry_after_ms is None else error.retry_after_ms / 1000
    spoke = error.type == "llm_stream_event_error"
    account = error.error_class is ErrorClass.AUTH
    return ModelFailed(model, kind, error.message, feedback=Feedback(retry_after=wait), spoke=spoke, account=account)


def _reply(answer: StreamResult) -> fleet.ModelReply:
    usage = answer.usage
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": _text(call.arguments)},
        }
        for call in answer.tool_calls
    ]
    return fleet.ModelReply(
        answer.text,
        input_tokens=(usage and usage.prompt_tokens) or 0,
        output_tokens=(usage and usage.completion_tokens) or 0,
        cache_read_tokens=(usage and usage.cache_read_tokens) or 0,
        model=answer.model or "",
        tool_calls=calls,
        stop_reason=STOPS[answer.stop_reason] if answer.stop_reason else "",
    )


def _text(arguments: Any) -> str:
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()
