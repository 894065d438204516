"""Models of Anthropic, or of any server that speaks its Messages API."""

import json
from dataclasses import dataclass, field
from typing import Any

from techrevati.fleet.answers import Answer, split_options
from techrevati.fleet.chat import for_anthropic, marked_for_cache, options_for_anthropic
from techrevati.fleet.feedback import Feedback
from techrevati.fleet.models import ModelReply, ModelRequest
from techrevati.fleet.prices import Tokens, cost_micros
from techrevati.fleet.sdk_model import SdkModel

_STOP = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


@dataclass(slots=True)
class _Message:
    """One message as its stream tells it."""

    answer: Answer
    usage: dict[str, Any] = field(default_factory=dict)
    blocks: dict[int, dict[str, Any]] = field(default_factory=dict)
    ended: bool = False

    def take(self, event: Any) -> None:
        match event.type:
            case "message_start":
                self.usage.update(_said(event.message.usage))
            case "content_block_start":
                self._begin(event.index, event.content_block)
            case "content_block_delta":
                self._go_on(event.index, event.delta)
            case "message_delta":
                self.usage.update(_said(event.usage))  # cumulative
                reason = event.delta.stop_reason or ""
                self.answer.stop_reason = _STOP.get(reason, reason)
            case "message_stop":
                self.ended = True

    def _begin(self, index: int, block: Any) -> None:
        match block.type:
            case "text":
                self.answer.say(block.text)
            case "tool_use":
                self.answer.call(index, block.id, block.name, json.dumps(block.input) if block.input else None)
            case "thinking" | "redacted_thinking":
                self.blocks[index] = block.model_dump(exclude_none=True)
                self.answer.conceal(self.blocks[index].get("data", ""))

    def _go_on(self, index: int, delta: Any) -> None:
        match delta.type:
            case "text_delta":
                self.answer.say(delta.text)
            case "input_json_delta":
                self.answer.call(index, None, None, delta.partial_json)
            case "thinking_delta":
                self.blocks[index]["thinking"] += delta.thinking
                self.answer.reason(delta.thinking)
            case "signature_delta":
                self.blocks[index]["signature"] = delta.signature


class AnthropicModel(SdkModel):
    """One model, streamed; `client` is an `anthropic.AsyncAnthropic`.  See `SdkModel`."""

    provider, client_class = "anthropic", "AsyncAnthropic"

    async def complete(self, request: ModelRequest) -> ModelReply:
        """Call the model.

        Raises:
            ModelFailed: with its failure class, and whether text had been delivered.
            NoProvider: no SDK, or no key.
        """
        answer, options = split_options(request.options)
        options = options_for_anthropic(options)
        cache = options.pop("prompt_cache", False)
        system, messages = for_anthropic(request.messages)
        if cache:
            system, messages = marked_for_cache(system, messages)
        sent = {**options, "messages": messages}
        if system:
            sent["system"] = system
        message = _Message(answer)
        feedback = await self._stream(answer, lambda client: client.messages.create, sent, message.take)
        if not message.ended:
            raise self._cut(answer)
        return self._reply(message, feedback)

    def _reply(self, message: _Message, feedback: Feedback) -> ModelReply:
        answer, usage = message.answer, message.usage
        plain, output = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
        cached, written = usage.get("cache_read_input_tokens", 0), usage.get("cache_creation_input_tokens", 0)
        hour = usage.get("cache_creation", {}).get("ephemeral_1h_input_tokens", 0)
        return ModelReply(
            text=answer.text,
            input_tokens=plain + cached + written,
            output_tokens=output,
            cost_micros=cost_micros(self._label, Tokens(plain, output, cached, written, hour)),
            model=self._label,
            tool_calls=answer.tool_calls,
            stop_reason=answer.stop_reason,
            reasoning=answer.reasoning,
            thinking=[message.blocks[index] for index in sorted(message.blocks)],
            cache_read_tokens=cached,
            cache_write_tokens=written,
            reasoning_tokens=usage.get("output_tokens_details", {}).get("thinking_tokens", 0),
            rated_input_tokens=plain + written,  # what is read from a cache is free there
            feedback=feedback,
        )


def _said(usage: Any) -> dict[str, Any]:
    """Give the numbers that this event tells; those it leaves out keep what an earlier one said."""
    found: dict[str, Any] = usage.model_dump(exclude_none=True)
    return found
