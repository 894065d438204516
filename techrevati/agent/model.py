"""The model, as the loop calls it.

    loop ──ModelRequest──▶ ModelPort ──deltas──▶ on_event
                               └──────StreamResult | InferenceError──▶ loop

One `infer` is one attempt against one model: retries, fallbacks and continuations are the loop's
(`inference`), so that a driver can journal every attempt and replay it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

import msgspec

from techrevati.agent.threads.message import Message, ToolCall
from techrevati.agent.tools import ToolDescriptor
from techrevati.runtime.errors import TechrevatiError


class StopReason(StrEnum):
    """Why a model stopped; stored as written here."""

    END_TURN = "EndTurn"
    MAX_TOKENS = "MaxTokens"
    TOOL_USE = "ToolUse"
    STOP_SEQUENCE = "StopSequence"


class TokenUsage(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Tokens of one call, as far as the provider tells."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    thinking_tokens: int | None = None


class StreamResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model answered in one call."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: TokenUsage | None = None
    stop_reason: StopReason | None = None
    model: str | None = None

    @property
    def is_empty(self) -> bool:
        return not self.text and not self.tool_calls and self.usage is None


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call: the assembled messages (system prompt first), the tools on offer, and options by their names.

    `max_output_tokens`, when known, lets an answer without a stop reason be recognised as cut off;
    `prompt_cache` asks for the provider's prompt cache.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[ToolDescriptor, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    max_output_tokens: int | None = None
    prompt_cache: bool = False


@dataclass(frozen=True, slots=True)
class TextPiece:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningPiece:
    text: str


@dataclass(frozen=True, slots=True)
class EncryptedReasoning:
    value: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a call's arguments, as JSON text."""

    id: str
    text: str


StreamEvent = TextPiece | ReasoningPiece | EncryptedReasoning | CallStarted | CallPiece
OnEvent = Callable[[StreamEvent], None]

ErrorType = Literal["llm_exec_error", "llm_stream_start_error", "llm_stream_event_error"]


class ErrorClass(StrEnum):
    """What kind of fault it was; the first five are worth another try on the same model."""

    RATE_LIMIT = "rate_limit"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    SERVER_UNAVAILABLE = "server_unavailable"
    SERVER_ERROR = "server_error"
    AUTH = "auth"
    CLIENT_REQUEST = "client_request"
    UNKNOWN = "unknown"

    @property
    def is_retryable(self) -> bool:
        return self not in (ErrorClass.AUTH, ErrorClass.CLIENT_REQUEST, ErrorClass.UNKNOWN)


class Received(msgspec.Struct, frozen=True, omit_defaults=True):
    """What had arrived when a stream broke."""

    text: str = ""
    call_started: bool = False


class InferenceError(TechrevatiError):
    """A model call failed.

    Attributes:
        type: Where: before the stream, at its start, or inside it.
        error_class: What kind of fault, which decides about a retry.
        received: What had arrived before a stream broke; the loop fills it in from the deltas it saw, a
            driver that replays attempts stores it.
        retry_after_ms: How long the provider asked to wait, if it said so.
    """

    def __init__(
        self,
        message: str,
        type: ErrorType = "llm_exec_error",
        error_class: ErrorClass | None = None,
        received: Received | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message, type, error_class, received, retry_after_ms)
        self.message, self.type, self.error_class = message, type, error_class
        self.received, self.retry_after_ms = received, retry_after_ms

    def __str__(self) -> str:
        return self.message if self.error_class is None else f"{self.error_class.value}: {self.message}"

    @property
    def is_retryable(self) -> bool:
        return self.error_class is not None and self.error_class.is_retryable


class ModelPort(Protocol):
    """Anything that answers a request once, telling pieces as they arrive."""

    async def infer(self, request: ModelRequest, on_event: OnEvent) -> StreamResult:
        """Answer once.

        Raises:
            InferenceError: anything else that is raised counts as one of class ``unknown``.
        """
        ...


def settled_stop_reason(result: StreamResult, max_output_tokens: int | None) -> StopReason:
    """Give the stop reason, worked out where the provider names none."""
    if result.stop_reason is not None:
        return result.stop_reason
    if result.tool_calls:
        return StopReason.TOOL_USE
    used = result.usage.completion_tokens if result.usage is not None else None
    if used is not None and max_output_tokens is not None and used == max_output_tokens:
        return StopReason.MAX_TOKENS
    return StopReason.END_TURN
