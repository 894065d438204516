"""Real providers behind `turn.model`: ``openai:NAME`` and ``anthropic:NAME``, through their own SDKs.

Each SDK is imported on first use; keys and base URLs come from the variables the SDKs themselves read
(OPENAI_API_KEY, OPENAI_BASE_URL, ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL).  Retries are the runtime's: the SDKs'
own are off, so that a turn is not waiting where nobody sees it.
"""

import importlib
from collections.abc import Callable
from typing import Any

from techrevati.fleet.models import Message, ModelReply, ModelRequest, Models
from techrevati.runtime.errors import TechrevatiError


class NoProvider(TechrevatiError):
    """A provider's SDK is not installed, or it has no key."""

    def __init__(self, provider: str, reason: str) -> None:
        super().__init__(provider, reason)
        self.provider, self.reason = provider, reason

    def __str__(self) -> str:
        return (
            f"{self.provider} cannot be called: {self.reason}; fix: pip install "
            f"'techrevati-workers[{self.provider}]' and set {self.provider.upper()}_API_KEY"
        )


def _client(provider: str, name: str) -> Any:
    try:
        sdk = importlib.import_module(provider)
    except ImportError:
        raise NoProvider(provider, "its SDK is not installed") from None
    try:
        return getattr(sdk, name)(max_retries=0)
    except Exception as error:  # each SDK has an error of its own for a missing key
        raise NoProvider(provider, str(error).splitlines()[0]) from error


def _split(options: dict[str, Any]) -> tuple[Callable[[str], None] | None, dict[str, Any]]:
    rest = dict(options)
    return rest.pop("on_delta", None), rest


class OpenAIModel:
    """A chat model of OpenAI, or of any server that speaks its API."""

    def __init__(self, name: str, client: Any = None) -> None:
        self._name, self._client = name, client or _client("openai", "AsyncOpenAI")

    async def complete(self, request: ModelRequest) -> ModelReply:
        on_delta, options = _split(request.options)
        stream = await self._client.chat.completions.create(
            model=self._name,
            messages=request.messages,
            stream=True,
            stream_options={"include_usage": True},
            **options,
        )
        text: list[str] = []
        calls: dict[int, dict[str, Any]] = {}
        tokens_in = tokens_out = 0
        async for chunk in stream:
            if chunk.usage is not None:
                tokens_in, tokens_out = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
            for choice in chunk.choices:
                if choice.delta.content:
                    text.append(choice.delta.content)
                    if on_delta is not None:
                        on_delta(choice.delta.content)
                for part in choice.delta.tool_calls or ():
                    call = calls.setdefault(
                        part.index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
                    )
                    call["id"] = part.id or call["id"]
                    if part.function is not None:
                        call["function"]["name"] += part.function.name or ""
                        call["function"]["arguments"] += part.function.arguments or ""
        ordered = [calls[index] for index in sorted(calls)]
        return ModelReply("".join(text), tokens_in, tokens_out, 0, f"openai:{self._name}", ordered)


class AnthropicModel:
    """A model of Anthropic, or of any server that speaks its Messages API."""

    def __init__(self, name: str, client: Any = None) -> None:
        self._name, self._client = name, client or _client("anthropic", "AsyncAnthropic")

    async def complete(self, request: ModelRequest) -> ModelReply:
        on_delta, options = _split(request.options)
        system, messages = split_system(request.messages)
        if system:
            options["system"] = system
        options.setdefault("max_tokens", 4096)
        async with self._client.messages.stream(model=self._name, messages=messages, **options) as stream:
            async for piece in stream.text_stream:
                if on_delta is not None:
                    on_delta(piece)
            message = await stream.get_final_message()
        text = "".join(block.text for block in message.content if block.type == "text")
        calls = [
            {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.input}}
            for block in message.content
            if block.type == "tool_use"
        ]
        usage = message.usage
        return ModelReply(text, usage.input_tokens, usage.output_tokens, 0, f"anthropic:{self._name}", calls)


def split_system(messages: list[Message]) -> tuple[str, list[Message]]:
    """Take the system messages out: Anthropic has a field of its own for them."""
    system = "\n\n".join(str(message["content"]) for message in messages if message.get("role") == "system")
    return system, [message for message in messages if message.get("role") != "system"]


def known_providers(models: Models) -> Models:
    """Let a fleet's models answer to the providers' prefixes."""
    models.provider("openai", OpenAIModel)
    models.provider("anthropic", AnthropicModel)
    return models
