"""Chat models of OpenAI, or of any server that speaks its API."""

import time
from collections.abc import Callable
from typing import Any

from techrevati.fleet.answers import Answer, split_options
from techrevati.fleet.chat import for_openai
from techrevati.fleet.feedback import read
from techrevati.fleet.model_failures import ModelFailed, failed
from techrevati.fleet.models import ModelReply, ModelRequest
from techrevati.fleet.prices import Tokens, cost_micros
from techrevati.fleet.sdks import NoProvider, Sdk, sendable


class OpenAIModel:
    """One model, streamed.

    Args:
        name: as the server knows it.
        client: an `openai.AsyncOpenAI` of your own; else one is made on the first call, from `base_url` and `api_key`
            or the variables the SDK reads.
        label: what replies, failures and prices call it; ``openai:NAME``.
    """

    def __init__(
        self,
        name: str,
        client: Any = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        label: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._label, self._clock = name, label or f"openai:{name}", clock
        self._sdk = Sdk("openai", "AsyncOpenAI", client, base_url=base_url, api_key=api_key)

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
        await self._sdk.load()
        try:
            create = self._sdk.client.chat.completions.create
            messages = for_openai(request.messages)
            stream = await create(model=self._name, messages=messages, stream=True, **sendable(create, options))
            async with stream:
                async for chunk in stream:
                    usage = chunk.usage or usage
                    for choice in chunk.choices or ():
                        _take(answer, choice)
        except NoProvider:
            raise
        except Exception as error:
            raise failed(self._sdk.module, self._label, error, spoke=answer.spoke, now=self._clock()) from error
        if not answer.stop_reason:
            raise ModelFailed(self._label, "dependency_failed", "its stream was cut", spoke=answer.spoke)
        return self._reply(answer, usage, read(stream.response.headers, self._clock()))

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

    async def close(self) -> None:
        """Hang up; the next call connects anew."""
        await self._sdk.close()


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
