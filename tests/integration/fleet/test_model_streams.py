"""Streams of both SDKs over real HTTP, through gate and budget: ended, refused, cut, too slow, left."""

import asyncio
import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from techrevati.fleet import Fleet, Outcome, Retry, Turn
from techrevati.fleet.anthropic_model import AnthropicModel
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.openai_model import OpenAIModel
from techrevati.store.budgets import Budget, Limit, Unit
from techrevati.store.gates import BreakerSpec, BucketSpec
from techrevati.store.sync import SyncStore
from tests.integration.fleet.desk import desk, until
from tests.model_server import ModelServer, model_server

OUTPUT = 50
"""Tokens that an answer may have: what its estimate reserves for it."""
ASKED = {"openai": 11, "anthropic": 9 + 5 + 3}
MADE = {"openai": 4, "anthropic": 3}
"""Tokens that the server's answer says were asked, and made."""


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    for provider in ASKED:
        importlib.import_module(provider)  # takes seconds on a busy machine: not on a call's time
    with model_server() as one:
        yield one


def client_of(provider: str, name: str, server: ModelServer) -> Any:
    if provider == "openai":
        return OpenAIModel(name, base_url=f"{server.url}/v1", api_key="k")
    return AnthropicModel(name, base_url=server.url, api_key="k")


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("model", "counts", "outcome"),
    [
        ("m", "what it told", "ok"),
        ("500", "nothing", "bad"),
        ("busy", "nothing", "none"),
        ("cut after", "estimate", "bad"),
        ("hush after", "estimate", "bad"),
        ("dies after", "estimate", "bad"),
        ("slow after", "estimate", "bad"),
        ("left", "estimate", "none"),
    ],
)
async def test_a_stream_settles_slot_tokens_money_and_breaker_however_it_ends(
    model: str, counts: str, outcome: str, provider: str, server: ModelServer, redis_url: str, fleet_name: str
) -> None:
    fleet, said = Fleet(fleet_name), asyncio.Event()
    client = client_of(provider, "slow after" if model == "left" else model, server)
    fleet.model("m", client)
    fleet.gate(
        "m",
        concurrency=1,
        breaker=BreakerSpec(failure_threshold=1, cooldown=60),
        buckets={"rpm": BucketSpec("rpm", 10, 0.001), "output_tpm": BucketSpec("output_tpm", 1000, 0.001)},
        provider_limits="ignore",
    )
    fleet.budget(tenant=Limit.tokens(100_000))

    @fleet.agent("writer", retry=Retry(tries=1))
    async def write(turn: Turn) -> Outcome:
        calling = asyncio.ensure_future(
            turn.model(
                "m",
                "hello",
                max_tokens=OUTPUT,
                timeout=0.4 if model == "slow after" else 10,
                on_delta=lambda _: said.set(),
            )
        )
        if model == "left":
            await said.wait()
            calling.cancel()
        with contextlib.suppress(ModelFailed, TimeoutError, asyncio.CancelledError):
            await calling
        turn.stop_calls()
        return turn.complete()

    async with desk(fleet, redis_url) as at:
        await at.served(await at.start())
        house = at.runtime._house
        assert house is not None
        await until(lambda: not house._under_way)
        [gate] = await asyncio.to_thread(at.client.gates)
    with SyncStore(redis_url) as store:
        account = Budget(store, fleet_name).look("default").levels["tenant"].account(Unit.TOKENS)
    await client.close()
    asked = account.spent - OUTPUT
    assert (gate.slots_used, account.reserved) == (0, 0), "nothing is held"
    taken = round(1000 - gate.levels["output_tpm"])
    match counts:
        case "what it told":
            assert (account.spent, taken) == (ASKED[provider] + MADE[provider], MADE[provider])
        case "nothing":
            assert account.spent == 0
            assert taken == (1000 if model == "busy" else 0), "who is told to stay away finds nothing until then"
        case "estimate":
            assert taken == OUTPUT and 0 < asked < 40
    assert gate.state == ("open" if outcome == "bad" else "closed")
