"""The provider clients, over real HTTP, against a small server that speaks both APIs."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from techrevati.fleet.anthropic_model import AnthropicModel
from techrevati.fleet.failures import classify
from techrevati.fleet.feedback import Allowance
from techrevati.fleet.model_failures import ModelFailed, asked_wait
from techrevati.fleet.models import ModelReply, ModelRequest, Models
from techrevati.fleet.openai_model import OpenAIModel
from techrevati.fleet.providers import known_providers
from techrevati.fleet.sdks import NoProvider
from techrevati.runtime.usage_tracking import PRICING_TABLE, ModelPricing, register_pricing
from tests.model_server import PIECES, ModelServer, model_server

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
BOTH = pytest.mark.parametrize("provider", ["openai", "anthropic"])
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def shared() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


@pytest.fixture
def server(shared: ModelServer) -> ModelServer:
    shared.seen.clear()
    shared.released.clear()
    return shared


@pytest.fixture
async def ask(server: ModelServer) -> AsyncIterator[Ask]:
    """Give ``ask(provider, model name, **options)``; messages are a short talk."""
    made: list[OpenAIModel | AnthropicModel] = []

    async def ask(provider: str, name: str, **options: Any) -> ModelReply:
        model: OpenAIModel | AnthropicModel
        if provider == "openai":
            model = OpenAIModel(name, base_url=f"{server.url}/v1", api_key="k")
        else:
            model = AnthropicModel(name, base_url=server.url, api_key="k")
        made.append(model)
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "tides?"}]
        return await model.complete(ModelRequest(name, messages, options))

    yield ask
    for model in made:
        await model.close()


@BOTH
async def test_the_reply_has_text_calls_reasoning_and_why_it_stopped(ask: Ask, provider: str) -> None:
    pieces: list[str] = []
    heard: list[tuple[str, dict[str, Any]]] = []
    reply = await ask(
        provider, "m", tools=[TOOL], on_delta=pieces.append, on_event=lambda kind, data: heard.append((kind, data))
    )
    assert reply.text == "The tide turns." and tuple(pieces) == PIECES
    assert (reply.stop_reason, reply.reasoning, reply.model) == ("tool_calls", "moon", f"{provider}:m")
    assert reply.tool_calls == [
        {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"q": "tides"}'}}
    ]
    index = heard[-1][1]["index"]
    assert heard == [
        ("reasoning_delta", {"text": "moon"}),
        *(("text_delta", {"text": piece}) for piece in PIECES),
        ("tool_call_start", {"index": index, "id": "t1", "name": "look"}),
        ("tool_call_delta", {"index": index, "id": "t1", "arguments": '{"q": '}),
        ("tool_call_delta", {"index": index, "id": "t1", "arguments": '"tides"}'}),
    ]
    assert (await ask(provider, "m")).stop_reason == "stop"


async def test_options_and_messages_go_out_as_the_provider_wants_them(ask: Ask, server: ModelServer) -> None:
    await ask("openai", "m", temperature=0, on_delta=print)
    await ask("anthropic", "m", temperature=0, on_event=print)
    for body in server.seen:
        assert body["temperature"] == 0 and "on_delta" not in body and "on_event" not in body and body["stream"]
    assert [message["role"] for message in server.seen[0]["messages"]] == ["system", "user"]
    assert server.seen[1]["system"] == [{"type": "text", "text": "Be brief."}]
    assert [message["role"] for message in server.seen[1]["messages"]] == ["user"]


async def test_signed_thinking_goes_back_as_it_came(ask: Ask) -> None:
    reply = await ask("anthropic", "m", tools=[TOOL])
    assert reply.message["thinking"] == [{"type": "thinking", "thinking": "moon", "signature": "sig"}]
    assert reply.message["content"] == reply.text and reply.message["tool_calls"] == reply.tool_calls


async def test_every_token_is_counted_once_and_priced(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(PRICING_TABLE)
    price = ModelPricing(1.0, 10.0, 3.0, 0.5, cache_write_1h_per_million=4.0)
    try:
        register_pricing("m", price)
        one, two = await ask("openai", "m"), await ask("anthropic", "m")
    finally:
        PRICING_TABLE.clear()
        PRICING_TABLE.update(before)
    assert (one.input_tokens, one.output_tokens, one.cache_read_tokens, one.reasoning_tokens) == (11, 4, 8, 2)
    assert one.cost_micros == 3 * 1 + 4 * 10 + 8 * 0.5
    assert (two.input_tokens, two.output_tokens, two.cache_read_tokens, two.cache_write_tokens) == (17, 3, 5, 3)
    assert two.cost_micros == round(9 * 1 + 3 * 10 + 5 * 0.5 + 1 * 3 + 2 * 4)
    assert (await ask("openai", "m")).cost_micros == 0, "no price is known any more"


async def test_the_limits_that_the_headers_tell_come_with_the_reply(ask: Ask) -> None:
    openai, anthropic = (await ask("openai", "m")).feedback, (await ask("anthropic", "m")).feedback
    assert openai.requests == Allowance(500, 499, 0.12) and openai.tokens.reset == 90.0
    assert anthropic.requests == Allowance(50, 49) and anthropic.input_tokens == Allowance(40_000, 39_000)


@BOTH
@pytest.mark.parametrize(("model", "wait"), [("busy seconds", 7.0), ("busy date", 90.0), ("busy", 1.5)])
async def test_a_429_is_a_rate_limit_and_says_when_to_come_back(
    ask: Ask, provider: str, model: str, wait: float
) -> None:
    with pytest.raises(ModelFailed, match="left alone") as caught:
        await ask(provider, model)
    assert classify(caught.value) == "rate_limit" and caught.value.throttled and caught.value.status == 429
    assert asked_wait(caught.value) == pytest.approx(wait, abs=1.5)


@BOTH
@pytest.mark.parametrize(
    ("model", "failure", "throttled", "elsewhere"),
    [
        ("500", "llm_error", False, True),
        ("503", "llm_error", True, True),
        ("529", "llm_error", True, True),
        ("504", "llm_timeout", False, True),
        ("401", "validation_error", False, True),
        ("404", "validation_error", False, True),
        ("quota", "validation_error", False, True),
        ("400", "prompt_rejection", False, False),
        ("422", "validation_error", False, False),
        ("long", "context_overflow", False, False),
        ("413", "context_overflow", False, False),
    ],
)
async def test_refusals_have_the_runtimes_failure_classes(
    ask: Ask, provider: str, model: str, failure: str, throttled: bool, elsewhere: bool
) -> None:
    with pytest.raises(ModelFailed) as caught:
        await ask(provider, model)
    error = caught.value
    assert (classify(error), error.throttled, error.elsewhere) == (failure, throttled, elsewhere)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.feedback == error.feedback


@BOTH
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("model", "failure"),
    [("cut", "dependency_failed"), ("hush", "dependency_failed"), ("garbled", "llm_error"), ("dies", "llm_error")],
)
async def test_a_broken_stream_says_whether_text_was_delivered_and_repeats_none(
    ask: Ask, server: ModelServer, provider: str, model: str, failure: str, after: bool
) -> None:
    pieces: list[str] = []
    with pytest.raises(ModelFailed) as caught:
        await ask(provider, f"{model} after" if after else model, on_delta=pieces.append)
    assert (caught.value.failure, caught.value.spoke) == (failure, after)
    assert pieces == ([PIECES[0]] if after else []) and len(server.seen) == 1, "asked once, said once"
    assert caught.value.throttled == (model == "dies")


@BOTH
async def test_a_slow_answer_is_a_timeout_of_the_runtime_or_of_the_sdk(
    ask: Ask, server: ModelServer, provider: str
) -> None:
    with pytest.raises(ModelFailed) as caught:
        await ask(provider, "slow", timeout=0.2)
    assert classify(caught.value) == "llm_timeout"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await ask(provider, "slow after")
    server.released.set()


@BOTH
async def test_nobody_there_is_a_failed_dependency(provider: str) -> None:
    make: Any = OpenAIModel if provider == "openai" else AnthropicModel
    model = make("m", base_url="http://127.0.0.1:9", api_key="k")
    with pytest.raises(ModelFailed) as caught:
        await model.complete(ModelRequest("m", [{"role": "user", "content": "?"}]))
    assert classify(caught.value) == "dependency_failed" and caught.value.elsewhere and not caught.value.made
    await model.close()


@BOTH
async def test_an_option_that_the_sdk_has_no_name_for_travels_in_the_body(
    ask: Ask, server: ModelServer, provider: str
) -> None:
    await ask(provider, "m", of_this_server=1, extra_body={"more": 2})
    assert (server.seen[0]["of_this_server"], server.seen[0]["more"]) == (1, 2)


@BOTH
async def test_a_value_that_the_sdk_cannot_send_is_refused_for_good(ask: Ask, provider: str) -> None:
    with pytest.raises(ModelFailed, match="refused by the SDK") as caught:
        await ask(provider, "m", user=object())
    assert classify(caught.value) == "validation_error" and not caught.value.elsewhere


async def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NoProvider, match="OPENAI_API_KEY") as caught:
        await known_providers(Models())["openai:gpt-5-mini"].complete(ModelRequest("m", []))
    assert classify(caught.value) == "validation_error"
