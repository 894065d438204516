"""Several models behind one name: over real HTTP, and with clients that a test can hold."""

import asyncio
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from techrevati.fleet.anthropic_model import AnthropicModel
from techrevati.fleet.calling import Refused
from techrevati.fleet.hedging import Hedge
from techrevati.fleet.latencies import Latencies
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.models import ModelReply, ModelRequest, Models, UnknownModel
from techrevati.fleet.openai_model import OpenAIModel
from techrevati.fleet.routed import RoutedModel
from techrevati.runtime.routing import RoundRobinProviderRouter, WeightedProviderRouter
from techrevati.runtime.usage_tracking import PRICING_TABLE, ModelPricing, register_pricing
from tests.model_server import PIECES, ModelServer, model_server

ASK = [{"role": "user", "content": "tides?"}]


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    for sdk in ("openai", "anthropic"):  # seconds of a busy machine, and none of them a provider's
        importlib.import_module(sdk)
    with model_server() as server:
        yield server


class Held:
    """A model that speaks when it is let, and tells what became of the call."""

    def __init__(self, name: str, *, speaks: bool = True, fails: Exception | None = None) -> None:
        self.name, self.speaks, self.fails = name, speaks, fails
        self.asked, self.go, self.end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.calls = self.cancelled = 0

    async def complete(self, request: ModelRequest) -> ModelReply:
        self.calls += 1
        self.asked.set()
        try:
            await self.go.wait()
            if self.speaks:
                request.options["on_delta"](f"{self.name} ")
                await self.end.wait()
            if self.fails is not None:
                raise self.fails
            if self.speaks:
                request.options["on_delta"]("done")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return ModelReply(f"{self.name} done", 10, 4, 70, self.name)

    def free(self) -> "Held":
        self.go.set()
        self.end.set()
        return self


def clients(**named: Any) -> Models:
    models = Models()
    for name, client in named.items():
        models.register(name, client)
    return models


def broken(failure: str = "llm_error", *, status: int | None = 500) -> Held:
    return Held("broken", speaks=False, fails=ModelFailed("broken", failure, "no", status)).free()


async def ask(model: RoutedModel, **options: Any) -> ModelReply:
    async with asyncio.timeout(10):
        return await model.complete(ModelRequest("routed", ASK, options))


def outcomes(reply: ModelReply) -> list[tuple[str, str, str]]:
    return [(one["model"], one["outcome"], one["failure"]) for one in reply.tried]


@pytest.mark.parametrize("bad", ["500", "529", "busy seconds", "401", "quota", "cut", "garbled"])
async def test_a_provider_that_fails_is_replaced_by_the_next_over_real_http(server: ModelServer, bad: str) -> None:
    one = OpenAIModel(bad, base_url=f"{server.url}/v1", api_key="k")
    two = AnthropicModel("m", base_url=server.url, api_key="k")
    pieces: list[str] = []
    reply = await ask(RoutedModel(["one", "two"], clients=clients(one=one, two=two)), on_delta=pieces.append)
    assert (reply.text, reply.model, tuple(pieces)) == ("The tide turns.", "anthropic:m", PIECES)
    assert [one["outcome"] for one in reply.tried] == ["failed"]
    await one.close()
    await two.close()


async def test_what_was_asked_wrongly_is_not_asked_again(server: ModelServer) -> None:
    one, two = OpenAIModel("400", base_url=f"{server.url}/v1", api_key="k"), Held("two").free()
    with pytest.raises(ModelFailed, match="prompt_rejection"):
        await ask(RoutedModel(["one", "two"], clients=clients(one=one, two=two)))
    assert two.calls == 0
    await one.close()


async def test_nothing_is_said_twice_when_a_stream_breaks_in_the_middle(server: ModelServer) -> None:
    one = OpenAIModel("cut after", base_url=f"{server.url}/v1", api_key="k")
    two = Held("two").free()
    pieces: list[str] = []
    with pytest.raises(ModelFailed, match="dependency_failed") as caught:
        await ask(RoutedModel(["one", "two"], clients=clients(one=one, two=two)), on_delta=pieces.append)
    assert caught.value.spoke and pieces == [PIECES[0]] and two.calls == 0

    heard: list[tuple[str, Any]] = []
    told = RoutedModel(["one", "two"], clients=clients(one=one, two=two), restart=True)
    reply = await ask(told, on_event=lambda kind, data: heard.append((kind, data)))
    assert reply.text == "two done" and heard[-1] == ("restart", {"model": "one"})
    await one.close()


async def test_the_last_failure_is_raised_with_what_was_tried() -> None:
    a, b = broken(), broken("llm_timeout", status=None)
    with pytest.raises(ModelFailed, match="llm_timeout") as caught:
        await ask(RoutedModel(["a", "b"], clients=clients(a=a, b=b)))
    assert "'model': 'a'" in caught.value.__notes__[0] and (a.calls, b.calls) == (1, 1)


async def test_a_model_that_takes_too_long_is_left_for_the_next() -> None:
    slow, quick = Held("slow", speaks=False), Held("quick").free()
    reply = await ask(RoutedModel(["slow", "quick"], clients=clients(slow=slow, quick=quick), timeout=0.05))
    assert reply.text == "quick done" and slow.cancelled == 1
    assert outcomes(reply) == [("slow", "failed", "llm_timeout")]


@pytest.mark.parametrize(
    ("router", "order"),
    [
        (None, ["a", "a"]),
        (RoundRobinProviderRouter(("a", "b", "c")), ["a", "b"]),
        (WeightedProviderRouter((("a", 1), ("b", 0), ("c", 2))), ["c", "c"]),
    ],
)
async def test_the_router_has_the_word(router: Any, order: list[str]) -> None:
    models = clients(a=Held("a").free(), b=Held("b").free(), c=Held("c").free())
    routed = RoutedModel(["a", "b", "c"], router=router, clients=models)
    assert [(await ask(routed)).model for _ in order] == order


async def test_a_router_that_names_nobody_is_told_so() -> None:
    routed = RoutedModel(["a"], router=WeightedProviderRouter((("a", 0),)), clients=clients(a=Held("a")))
    with pytest.raises(ValueError, match="chose none"):
        await ask(routed)
    with pytest.raises(UnknownModel):
        await ask(RoutedModel(["nobody"], clients=clients()))


class Gate:
    """A caller that refuses whom it is told to."""

    def __init__(self, models: Models, **waits: float | None) -> None:
        self.models, self.waits = models, waits

    async def call(self, name: str, request: ModelRequest) -> ModelReply:
        if name in self.waits:
            raise Refused(name, "breaker", self.waits[name])
        return await self.models[name].complete(request)


async def test_models_whose_gate_does_not_admit_are_skipped() -> None:
    a, b = Held("a").free(), Held("b").free()
    routed = RoutedModel(["a", "b"])
    reply = await routed.route(ModelRequest("r", ASK), Gate(clients(a=a, b=b), a=5.0))
    assert reply.model == "b" and a.calls == 0 and outcomes(reply) == [("a", "refused", "")]
    with pytest.raises(Refused) as caught:
        await routed.route(ModelRequest("r", ASK), Gate(clients(a=a, b=b), a=5.0, b=2.0))
    assert (caught.value.model, caught.value.wait) == ("b", 2.0), "the one that is soonest"
    with pytest.raises(Refused) as caught:
        await routed.route(ModelRequest("r", ASK), Gate(clients(a=a, b=b), a=None, b=2.0))
    assert caught.value.model == "b"


async def test_silence_brings_a_second_and_the_first_sign_wins() -> None:
    first, second = Held("first"), Held("second")
    models = clients(first=first, second=second)
    routed = RoutedModel(["first", "second"], clients=models, hedge=Hedge(at_least=0.01, otherwise=0.01))
    pieces: list[str] = []
    before = dict(PRICING_TABLE)
    register_pricing("first", ModelPricing(1000.0, 1000.0))
    try:
        call = asyncio.create_task(ask(routed, on_delta=pieces.append, max_tokens=5))
        async with asyncio.timeout(5):
            await second.asked.wait()
        second.free()
        reply = await call
    finally:
        PRICING_TABLE.clear()
        PRICING_TABLE.update(before)
    assert reply.text == "second done" and pieces == ["second ", "done"]
    assert first.cancelled == 1 and outcomes(reply) == [("first", "lost", "")]
    assert reply.tried[0]["cost_micros"] > 5000, "what it may have cost is accounted"
    assert reply.cost_micros == 70


async def test_the_first_may_still_win_and_the_second_is_not_heard() -> None:
    first, second = Held("first"), Held("second")
    routed = RoutedModel(["first", "second"], clients=clients(first=first, second=second), hedge=Hedge(otherwise=0.01))
    pieces: list[str] = []
    call = asyncio.create_task(ask(routed, on_delta=pieces.append))
    async with asyncio.timeout(5):
        await second.asked.wait()
        first.go.set()
        while not second.cancelled:
            await asyncio.sleep(0.001)
    second.free()
    first.end.set()
    assert (await call).text == "first done" and pieces == ["first ", "done"]


async def test_no_second_is_asked_once_the_first_has_given_a_sign() -> None:
    first, second = Held("first"), Held("second")
    first.go.set()
    routed = RoutedModel(
        ["first", "second"], clients=clients(first=first, second=second), hedge=Hedge(at_least=0.01, otherwise=0.01)
    )
    call = asyncio.create_task(ask(routed))
    await asyncio.sleep(0.05)
    first.end.set()
    assert (await call).model == "first" and second.calls == 0


async def test_a_first_that_fails_leaves_the_call_to_the_second() -> None:
    first, second = Held("first", speaks=False, fails=ConnectionError("gone")), Held("second")
    routed = RoutedModel(["first", "second"], clients=clients(first=first, second=second), hedge=Hedge(otherwise=0.01))
    call = asyncio.create_task(ask(routed))
    async with asyncio.timeout(5):
        await second.asked.wait()
    first.go.set()
    await asyncio.sleep(0)
    second.free()
    reply = await call
    assert reply.text == "second done" and outcomes(reply) == [("first", "failed", "dependency_failed")]


async def test_a_cancelled_call_leaves_nobody_running() -> None:
    first, second = Held("first"), Held("second")
    routed = RoutedModel(["first", "second"], clients=clients(first=first, second=second), hedge=Hedge(otherwise=0.01))
    call = asyncio.create_task(ask(routed))
    async with asyncio.timeout(5):
        await second.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (first.cancelled, second.cancelled) == (1, 1)


def test_hedging_waits_for_enough_samples_and_memory_stays_bounded() -> None:
    latencies, hedge = Latencies(keep=100), Hedge(percentile=0.95, samples=20, at_least=0.0)
    for number in range(19):
        latencies.add(number)
    assert hedge.delay(latencies) is None and Hedge(otherwise=3.0).delay(latencies) == 3.0
    for number in range(1, 1001):
        latencies.add(number)
    assert len(latencies) == 100 and latencies.percentile(0.95) == 995 and hedge.delay(latencies) == 995
    assert latencies.percentile(1.0) == 1000 and latencies.percentile(0.001) == 901
    assert Latencies().percentile(0.5) is None


@pytest.mark.parametrize("models", [[], ["a", "a"]])
def test_a_route_needs_models_each_once(models: list[str]) -> None:
    with pytest.raises(ValueError, match="each once"):
        RoutedModel(models)
