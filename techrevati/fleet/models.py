"""Model clients: what `turn.model` calls.

turn.model(name, messages) ──ModelRequest──▶ client ──ModelReply──▶ turn
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from techrevati.fleet.feedback import SILENT, Feedback
from techrevati.runtime.errors import TechrevatiError

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call: chat messages (`fleet.chat` has their shape), and options as the provider names them.

    Three options are ours.  `prompt_cache` asks for the provider's prompt cache.  `on_delta(text)` gets each piece of
    text as it arrives; `on_event(kind, data)` gets ``text_delta`` {text}, ``reasoning_delta`` {text},
    ``reasoning_encrypted`` {value}, ``tool_call_start`` {index, id, name} and ``tool_call_delta`` {index, id,
    arguments}.  `timeout` is what the caller gives it (s); leases last as long.
    """

    model: str
    messages: list[Message]
    options: dict[str, Any] = field(default_factory=dict)
    timeout: float = 120.0
    costs: "Costs" = field(default_factory=dict)
    """What the call costs buckets of its gate beyond requests and tokens."""


Costs = Mapping[str, float | Callable[[ModelRequest], float]]
"""Bucket -> what a call costs it: a number, or a function of the call."""


@dataclass(frozen=True, slots=True)
class ModelReply:
    """What a model answered, and what it cost (micro-dollars)."""

    text: str
    input_tokens: int = 0
    """All of the prompt's, those read from and written to a cache included."""
    output_tokens: int = 0
    """All that was made, reasoning included."""
    cost_micros: int = 0
    model: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """In OpenAI's shape, `arguments` as JSON text."""
    stop_reason: str = ""
    """stop, length, tool_calls, refusal, content_filter, or the provider's own word."""
    reasoning: str = ""
    thinking: list[dict[str, Any]] = field(default_factory=list)
    """Signed blocks that the provider wants back in the assistant's message."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    rated_input_tokens: int | None = None
    """Those of the prompt that the provider's rate limits count; None: all."""
    feedback: Feedback = SILENT
    """What the provider said of its limits; not journaled."""
    tried: list[dict[str, Any]] = field(default_factory=list)
    """Of a `RoutedModel`: what else was tried, and what it cost."""

    @property
    def message(self) -> Message:
        """The answer as the message that continues the conversation."""
        answer: Message = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            answer["tool_calls"] = self.tool_calls
        if self.thinking:
            answer["thinking"] = self.thinking
        return answer


class ModelClient(Protocol):
    """Anything that answers a model request."""

    async def complete(self, request: ModelRequest) -> ModelReply: ...


class UnknownModel(TechrevatiError):
    """No client is registered under the name, and no provider of that prefix is known."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return (
            f"model {self.name!r} is unknown; known: {', '.join(self.known) or 'none'}; fix: "
            "fleet.model(name, client), or openai:NAME / anthropic:NAME with the extra and the key"
        )


class RetryLater(TechrevatiError):
    """A provider said when to come back; the turn waits without holding a place."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(name, seconds)
        self.name, self.seconds = name, seconds

    def __str__(self) -> str:
        return f"{self.name} asks to come back in {self.seconds:g} s"


class Models:
    """The model clients of a fleet, by name; ``openai:`` and ``anthropic:`` make theirs on first use."""

    def __init__(self) -> None:
        self._clients: dict[str, ModelClient] = {}
        self._makers: dict[str, Callable[[str], ModelClient]] = {}

    def register(self, name: str, client: ModelClient) -> None:
        self._clients[name] = client

    def provider(self, prefix: str, make: Callable[[str], ModelClient]) -> None:
        """Let `make(NAME)` answer for every model called ``prefix:NAME``."""
        self._makers[prefix] = make

    def __getitem__(self, name: str) -> ModelClient:
        client = self._clients.get(name)
        if client is None:
            prefix, colon, rest = name.partition(":")
            if not colon or prefix not in self._makers:
                raise UnknownModel(name, tuple(sorted([*self._clients, *(f"{p}:NAME" for p in self._makers)])))
            client = self._clients[name] = self._makers[prefix](rest)
        return client
