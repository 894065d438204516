"""What an observability sink is told: spans of inferences and tool calls, and what a run came to."""

from collections.abc import Mapping
from typing import Any

import msgspec

from techrevati.agent.model import TokenUsage
from techrevati.agent.tools import ToolStatus


class InferenceSpan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One inference, its retries and fallbacks included; durations in seconds."""

    run_id: str
    thread_id: str
    agent_id: str
    step: int
    model: str
    provider: str
    operation: str = "chat"
    response_model: str | None = None
    finish_reasons: tuple[str, ...] = ()
    error_type: str | None = None
    error_class: str | None = None
    usage: TokenUsage = TokenUsage()
    options: Mapping[str, Any] = {}
    duration: float = 0.0

    def attributes(self) -> dict[str, Any]:
        """Give the span's attributes by their OpenTelemetry GenAI names; what is unknown is left out."""
        stop = self.options.get("stop_sequences") or self.options.get("stop")
        named = {
            "gen_ai.operation.name": self.operation,
            "gen_ai.provider.name": self.provider,
            "gen_ai.request.model": self.model,
            "gen_ai.response.model": self.response_model,
            "gen_ai.response.finish_reasons": list(self.finish_reasons) or None,
            "gen_ai.conversation.id": self.thread_id,
            "gen_ai.agent.id": self.agent_id,
            "gen_ai.usage.input_tokens": self.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": self.usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": self.usage.cache_read_tokens,
            "gen_ai.usage.cache_creation.input_tokens": self.usage.cache_creation_tokens,
            "gen_ai.usage.reasoning.output_tokens": self.usage.thinking_tokens,
            "gen_ai.request.temperature": self.options.get("temperature"),
            "gen_ai.request.top_p": self.options.get("top_p"),
            "gen_ai.request.max_tokens": self.options.get("max_tokens"),
            "gen_ai.request.stop_sequences": [stop] if isinstance(stop, str) else stop,
            "error.type": self.error_class or self.error_type,
        }
        return {name: value for name, value in named.items() if value is not None}


class ToolSpan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One execution of a tool call, from its gate to its result; a replay is another."""

    run_id: str
    thread_id: str
    agent_id: str
    step: int
    name: str
    call_id: str
    status: ToolStatus
    type: str = "function"
    error_type: str | None = None
    duration: float = 0.0

    def attributes(self) -> dict[str, Any]:
        """Give the span's attributes by their OpenTelemetry GenAI names."""
        named = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": self.name,
            "gen_ai.tool.call.id": self.call_id,
            "gen_ai.tool.type": self.type,
            "gen_ai.conversation.id": self.thread_id,
            "gen_ai.agent.id": self.agent_id,
            "error.type": self.error_type,
        }
        return {name: value for name, value in named.items() if value is not None}


class Totals(msgspec.Struct, omit_defaults=True):
    """What the inferences of one model, or the calls of one tool, came to."""

    count: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    duration: float = 0.0


class RunMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to, by model and by tool."""

    run_id: str
    thread_id: str
    agent_id: str
    status: str
    done_reason: str | None
    models: Mapping[str, Totals]
    tools: Mapping[str, Totals]

    @property
    def total(self) -> Totals:
        """Add up the models; `count` is the inferences."""
        found = self.models.values()
        return Totals(*(sum(getattr(each, name) for each in found) for name in Totals.__struct_fields__))
