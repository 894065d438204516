"""Chat models of OpenAI, or of any server that speaks its API."""

from typing import Any

from techrevati.fleet.answers import Answer, split_options
from techrevati.fleet.chat import for_openai
from techrevati.fleet.models import ModelReply, ModelRequest
from techrevati.fleet.prices import Tokens, cost_micros
from techrevati.fleet.sdk_model import SdkModel


class OpenAIModel(SdkModel):
    """One model, streamed; `client` is an `openai.AsyncOpenAI`.  See `SdkModel`."""

    provider, client_class = "openai", "AsyncOpenAI"

    async def complete(self, request: ModelRequest) -> ModelReply:
        """Call the model.

        Raises:
            ModelFailed: with its failure class, and whether text had been delivered.
            NoProvider: no SDK, or no key.
        """
        answer, options = split_options(request.options)
        options.pop("prompt_cache", None)  # it caches by itself
        options.setdefault("stream_options", {"include_usage": True})
        usage: Any = None

        def take(chunk: Any) -> None:
            nonlocal usage
            usage = chunk.usage or usage
            for choice in chunk.choices or ():
                _take(answer, choice)

        sent = {**options, "messages": for_openai(request.messages)}
        feedback = await self._stream(answer, lambda client: client.chat.completions.create, sent, take)
        if not answer.stop_reason:
            raise self._cut(answer)
        return self._reply(answer, usage, feedback)

    def _reply(self, answer: Answer, usage: Any, feedback: Any) -> ModelReply:
        prompt = getattr(usage, "prompt_tokens_details", None)
        cached = getattr(prompt, "cached_tokens", None) or 0
        written = getattr(prompt, "cache_write_tokens", None) or 0
        made = getattr(usage, "completion_tokens_details", None)
        total, output = getattr(usage, "prompt_tokens", 0), getattr(usage, "completion_tokens", 0)
        tokens = Tokens(max(0, total - cached - written), output, cached, written)
        return ModelReply(
            text=answer.text,
            input_tokens=total,
            output_tokens=output,
            cost_micros=cost_micros(self._label, tokens),
            model=self._label,
            tool_calls=answer.tool_calls,
            stop_reason=answer.stop_reason,
            reasoning=answer.reasoning,
            cache_read_tokens=cached,
            cache_write_tokens=written,
            reasoning_tokens=getattr(made, "reasoning_tokens", None) or 0,
            feedback=feedback,
        )


def _take(answer: Answer, choice: Any) -> None:
    delta = choice.delta
    # Not of OpenAI's own chat API, but of most servers that speak it.
    answer.reason(getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None) or "")
    answer.say(delta.content or "")
    if delta.refusal:
        answer.say(delta.refusal)
        answer.stop_reason = "refusal"
    for part in delta.tool_calls or ():
        function = part.function
        answer.call(part.index, part.id, function and function.name, function and function.arguments)
    if choice.finish_reason and answer.stop_reason != "refusal":
        answer.stop_reason = choice.finish_reason
