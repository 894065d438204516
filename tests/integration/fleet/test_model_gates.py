"""Gates around `turn.model`, on a real Redis: who is let out, who waits, what is settled."""

import asyncio
import contextlib
from typing import Any

import pytest

from techrevati.fleet import AsyncClient, Fleet, Hedge, ModelReply, ModelRequest, Outcome, Retry, Turn
from techrevati.fleet.client import Client
from techrevati.fleet.feedback import Allowance, Feedback
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.routed import RoutedModel
from techrevati.store import calls
from techrevati.store.gates import BreakerSpec, BucketSpec, UnknownBucket
from techrevati.store.records import RunRecord
from tests.integration.fleet.desk import desk


class Model:
    """A model that answers, or fails as it is told, when it is let."""

    def __init__(self, *errors: Exception, reply: ModelReply | None = None) -> None:
        self.errors, self.calls = list(errors), 0
        self.reply = reply or ModelReply("so", 5, 10)
        self.go = asyncio.Event()
        self.go.set()

    async def complete(self, request: ModelRequest) -> ModelReply:
        self.calls += 1
        await self.go.wait()
        if self.errors:
            raise self.errors.pop(0)
        return self.reply


def newsroom(name: str, *, tries: int = 1, times: int = 1, model: str = "m", **models: Any) -> Fleet:
    fleet = Fleet(name)
    for label, client in models.items():
        fleet.model(label, client)

    @fleet.agent("writer", retry=Retry(tries=tries, base=0.0, cap=0.0))
    async def write(turn: Turn) -> Outcome:
        for _ in range(times):
            reply = await turn.model(model, "hello", max_tokens=20)
        return turn.complete(reply.model)

    return fleet


def wait_of(record: RunRecord) -> float:
    assert record.until is not None and record.created is not None
    return record.until - record.created


def sweep(client: Client, run_id: str) -> None:
    client.store.run(calls.sweep(client.keys(run_id)))


async def trips(fleet: Fleet, url: str) -> int:
    """Count the round trips of one turn with one model call: the least of several, as a pulse may fall into one."""
    async with desk(fleet, url) as at:
        store = at.runtime._store
        assert store is not None
        counted = []
        for _ in range(6):  # the first makes tenant and gate known
            run = await at.start()
            before = store.batches
            await at.ticket(run)
            counted.append(store.batches - before)
        return min(counted)


async def test_a_model_without_a_gate_costs_no_round_trip(redis_url: str, fleet_name: str) -> None:
    bare = await trips(newsroom(fleet_name, m=Model()), redis_url)
    gated = newsroom(f"{fleet_name}g", m=Model())
    gated.gate("other", rpm=1)
    assert await trips(gated, redis_url) == bare


async def test_a_gate_and_a_budget_are_asked_together_and_settled_together(redis_url: str, fleet_name: str) -> None:
    bare = await trips(newsroom(fleet_name, m=Model()), redis_url)
    fleet = newsroom(f"{fleet_name}g", m=Model())
    fleet.gate("m", rpm=600, input_tpm=60_000, concurrency=5)
    fleet.budget(tenant=5)
    assert await trips(fleet, redis_url) == bare + 2


async def test_a_short_wait_is_waited_out_and_a_long_one_parks(redis_url: str, fleet_name: str) -> None:
    model = Model()
    fleet = newsroom(fleet_name, times=2, m=model)
    fleet.gate("m", buckets={"rpm": BucketSpec("rpm", 1, 1.5)})
    async with desk(fleet, redis_url) as at:
        run = await at.start()
        assert (await at.served(run)).status == "completed" and model.calls == 2
        [waited] = [data for kind, data in await at.events(run) if kind == "gate.waits"]
        assert waited["gate"] == "m" and waited["why"] == "rate" and 0 < waited["seconds"] <= 0.67
    slow = newsroom(f"{fleet_name}s", times=2, m=model)
    slow.gate("m", buckets={"rpm": BucketSpec("rpm", 1, 0.2)})
    async with desk(slow, redis_url) as at:
        run = await at.start()
        record = await at.served(run)
        assert (record.status, record.home, record.why) == ("waiting", "due", "gate:m") and model.calls == 3
        assert 3.5 < wait_of(record) < 6


async def test_a_parked_turn_gives_its_money_back(redis_url: str, fleet_name: str) -> None:
    fleet = newsroom(fleet_name, times=2, m=Model())
    fleet.gate("m", buckets={"rpm": BucketSpec("rpm", 1, 0.2)})
    fleet.budget(tenant=5)
    async with desk(fleet, redis_url) as at:
        assert (await at.served(await at.start())).why == "gate:m"
        lines = {line.account: line for line in await asyncio.to_thread(at.client.budgets)}
    assert lines["tokens.total"].spent == 15 and lines["tokens.total"].reserved == 0


async def test_actual_tokens_take_the_place_of_the_estimate(redis_url: str, fleet_name: str) -> None:
    fleet = newsroom(fleet_name, m=Model(reply=ModelReply("so", 500, 10, rated_input_tokens=400)))
    fleet.gate("m", input_tpm=6000, output_tpm=600)
    async with desk(fleet, redis_url) as at:
        await at.ticket(await at.start())
        [gate] = await asyncio.to_thread(at.client.gates)
    assert 5590 < gate.levels["input_tpm"] < 5800 and 585 < gate.levels["output_tpm"] <= 600


async def test_failures_open_the_breaker_and_the_next_turn_waits_for_it(redis_url: str, fleet_name: str) -> None:
    model = Model(*(ModelFailed("m", "llm_error", "no", 500) for _ in range(2)))
    fleet = newsroom(fleet_name, m=model)
    fleet.gate("m", breaker=BreakerSpec(failure_threshold=2, cooldown=30.0))
    async with desk(fleet, redis_url) as at:
        for _ in range(2):
            assert (await at.served(await at.start())).status == "dead"
        record = await at.served(await at.start())
        assert (record.why, record.home) == ("gate:m", "due") and model.calls == 2
        assert 25 < wait_of(record) < 40
        [gate] = await asyncio.to_thread(at.client.gates)
    assert gate.state == "open"


@pytest.mark.parametrize("failure", ["prompt_rejection", "context_overflow"])
async def test_what_was_asked_wrongly_says_nothing_against_the_provider(
    redis_url: str, fleet_name: str, failure: str
) -> None:
    model = Model(*(ModelFailed("m", failure, "no", 400) for _ in range(3)))
    fleet = newsroom(fleet_name, m=model)
    fleet.gate("m", failure_threshold=2)
    async with desk(fleet, redis_url) as at:
        for _ in range(3):
            await at.ticket(await at.start())
        assert (await at.served(await at.start())).status == "completed"


async def test_a_retry_after_parks_everybody_and_costs_no_try(redis_url: str, fleet_name: str) -> None:
    told = Feedback(retry_after=20.0)
    model = Model(ModelFailed("m", "rate_limit", "slow down", 429, told, throttled=True))
    fleet = newsroom(fleet_name, m=model)
    fleet.gate("m", rpm=600)
    async with desk(fleet, redis_url) as at:
        first, second = await at.start(), await at.start()
        one = await at.served(first)
        two = await at.served(second)
        assert (one.why, one.failures, two.why) == ("gate:m", 0, "gate:m") and model.calls == 1
        assert 15 < wait_of(two) < 25


async def test_what_a_provider_says_remains_is_all_that_is_left(redis_url: str, fleet_name: str) -> None:
    said = Feedback(requests=Allowance(600, 0, 30.0))
    fleet = newsroom(fleet_name, m=Model(reply=ModelReply("so", 5, 10, feedback=said)))
    fleet.gate("m", rpm=600)
    async with desk(fleet, redis_url) as at:
        assert (await at.served(await at.start())).status == "completed"
        [gate] = await asyncio.to_thread(at.client.gates)
    assert gate.levels["rpm"] < 30


@pytest.mark.parametrize(("declared", "holds"), [(600, 50), (20, 20)])
async def test_the_gate_holds_no_more_than_the_provider_says_its_limit_is(
    declared: int, holds: int, redis_url: str, fleet_name: str
) -> None:
    said = Feedback(requests=Allowance(50, 49, 1.2), tokens=Allowance(4000, 3900, 1.0))
    fleet = newsroom(fleet_name, m=Model(reply=ModelReply("so", 5, 10, feedback=said)))
    fleet.gate("m", rpm=declared, input_tpm=100_000)
    async with desk(fleet, redis_url) as at:
        for _ in range(2):
            assert (await at.served(await at.start())).status == "completed"
        [gate] = await asyncio.to_thread(at.client.gates)
    assert gate.capacities == {"rpm": holds, "input_tpm": 4000}
    assert gate.levels["rpm"] <= holds


async def test_a_cancelled_turn_gives_its_slot_back(redis_url: str, fleet_name: str) -> None:
    model = Model()
    model.go.clear()
    fleet = newsroom(fleet_name, m=model)
    fleet.gate("m", concurrency=1)
    async with desk(fleet, redis_url) as at:
        run = await at.start()
        serving = asyncio.create_task(at.ticket(run))
        async with asyncio.timeout(10):
            while not model.calls:
                await asyncio.sleep(0.005)
        [gate] = await asyncio.to_thread(at.client.gates)
        assert gate.slots_used == 1
        await asyncio.to_thread(run.cancel)
        await serving
        assert (await at.record(run)).status == "cancelled"
        model.go.set()
        assert (await at.served(await at.start())).status == "completed"


async def test_a_route_takes_whoever_is_admitted_and_stands_in_line_at_one_only(
    redis_url: str, fleet_name: str
) -> None:
    a, b = Model(reply=ModelReply("so", model="a")), Model(reply=ModelReply("so", model="b"))
    fleet = newsroom(fleet_name, model="either", a=a, b=b, either=RoutedModel(["a", "b"]))
    fleet.gate("a", buckets={"rpm": BucketSpec("rpm", 1, 0.05)})
    fleet.gate("b", buckets={"rpm": BucketSpec("rpm", 1, 0.1)})
    async with desk(fleet, redis_url) as at:
        runs = [await at.start() for _ in range(3)]
        records = [await at.served(run) for run in runs]
        assert [record.output for record in records[:2]] == ["a", "b"]
        assert (records[2].why, records[2].home) == ("gate:b", "due"), "the one that is sooner"
        gates = {gate.name: gate for gate in await asyncio.to_thread(at.client.gates)}
    assert (gates["a"].in_line, gates["b"].in_line) == (0, 1)


async def test_who_parked_at_a_route_finds_its_place_again(redis_url: str, fleet_name: str) -> None:
    a, b = Model(reply=ModelReply("so", model="a")), Model(reply=ModelReply("so", model="b"))
    fleet = newsroom(fleet_name, model="either", a=a, b=b, either=RoutedModel(["a", "b"]))
    fleet.gate("a", buckets={"rpm": BucketSpec("rpm", 1, 0.01)})
    fleet.gate("b", buckets={"rpm": BucketSpec("rpm", 1, 0.6)})
    async with desk(fleet, redis_url) as at:
        first, second, third = [await at.start() for _ in range(3)]
        for run in (first, second, third):
            await at.ticket(run)
        assert (await at.record(third)).why == "gate:b"
        async with asyncio.timeout(10):
            while (record := await at.record(third)).status != "completed":
                await asyncio.to_thread(sweep, at.client, third.id)
                await at.ticket(third)
                await asyncio.sleep(0.02)
        parks = [kind for kind, _ in await at.events(third)].count("turn.parked")
    assert record.output == "b" and (a.calls, b.calls, parks) == (1, 2, 1), "its place was kept"


async def test_the_loser_of_a_hedge_gives_its_slot_back_and_is_charged(redis_url: str, fleet_name: str) -> None:
    slow, quick = Model(), Model(reply=ModelReply("so", 5, 10, model="quick"))
    slow.go.clear()
    hedge = Hedge(otherwise=0.02, at_least=0.02)
    fleet = newsroom(
        fleet_name, model="either", slow=slow, quick=quick, either=RoutedModel(["slow", "quick"], hedge=hedge)
    )
    for name in ("slow", "quick"):
        fleet.gate(name, concurrency=2, input_tpm=6000, output_tpm=6000)
    fleet.budget(tenant=5)
    async with desk(fleet, redis_url) as at:
        run = await at.start()
        assert (await at.served(run)).output == "quick"
        gates = {gate.name: gate for gate in await asyncio.to_thread(at.client.gates)}
        lines = {line.account: line for line in await asyncio.to_thread(at.client.budgets)}
        [called] = [data for kind, data in await at.events(run) if kind == "model.called"]
    assert (gates["slow"].slots_used, gates["quick"].slots_used) == (0, 0)
    assert gates["slow"].state == "closed" and 5970 < gates["slow"].levels["output_tpm"] < 5990, "its estimate: 20"
    assert lines["tokens.total"].reserved == 0 and lines["tokens.total"].spent > 15 + 20
    assert [one["outcome"] for one in called["tried"]] == ["lost"]


async def test_a_breaker_that_opens_says_so_in_the_stream_of_the_run_that_opened_it(
    redis_url: str, fleet_name: str
) -> None:
    fleet = Fleet(fleet_name)
    fleet.model("m", Model(ModelFailed("m", "llm_error", "no", 500)))
    fleet.gate("m", failure_threshold=1)

    @fleet.agent("writer")
    async def write(turn: Turn) -> Outcome:
        try:
            await turn.model("m", "hello")
        except ModelFailed:
            return turn.complete("did without")
        return turn.complete()

    async with desk(fleet, redis_url) as at:
        run = await at.start()
        assert (await at.served(run)).output == "did without"
        assert ("gate.state", {"gate": "m", "state": "open"}) in await at.events(run)


@pytest.mark.parametrize("grouped", [False, True])
async def test_tasks_of_a_turn_that_park_lose_no_answer_that_was_paid(
    redis_url: str, fleet_name: str, grouped: bool
) -> None:
    asked: list[str] = []

    class Asked(Model):
        async def complete(self, request: ModelRequest) -> ModelReply:
            asked.append(request.messages[0]["content"])
            await asyncio.sleep(0.1)
            return ModelReply(request.messages[0]["content"], 5, 10)

    fleet = Fleet(fleet_name)
    fleet.model("m", Asked())
    fleet.gate("m", buckets={"rpm": BucketSpec("rpm", 2, 0.5)})

    @fleet.agent("writer", retry=Retry(tries=1))
    async def write(turn: Turn) -> Outcome:
        if grouped:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(turn.model("m", word)) for word in ("a", "b", "c")]
            return turn.complete([task.result().text for task in tasks])
        replies = await asyncio.gather(*(turn.model("m", word) for word in ("a", "b", "c")))
        return turn.complete([reply.text for reply in replies])

    async with desk(fleet, redis_url) as at:
        run = await at.start()
        record = await at.served(run)
        assert (record.why, record.home, sorted(asked)) == ("gate:m", "due", ["a", "b"])
        async with asyncio.timeout(10):
            while (record := await at.record(run)).status != "completed":
                await asyncio.to_thread(sweep, at.client, run.id)
                await at.ticket(run)
                await asyncio.sleep(0.02)
    assert record.output == ["a", "b", "c"] and sorted(asked) == ["a", "b", "c"]


async def test_a_group_of_tasks_in_which_one_fails_has_failed(redis_url: str, fleet_name: str) -> None:
    fleet = Fleet(fleet_name)
    fleet.model("m", Model())
    fleet.gate("m", buckets={"rpm": BucketSpec("rpm", 1, 0.1)})

    @fleet.agent("writer", retry=Retry(tries=1))
    async def write(turn: Turn) -> Outcome:
        async def fail() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
            raise ValueError("no")

        await turn.model("m", "first")
        async with asyncio.TaskGroup() as group:
            group.create_task(turn.model("m", "second"))
            group.create_task(fail())
        return turn.complete()

    async with desk(fleet, redis_url) as at:
        record = await at.served(await at.start())
    assert record.status == "dead" and record.error["type"] == "ValueError"


@pytest.mark.parametrize("routed", [False, True])
async def test_a_model_that_never_answers_times_out_and_counts_against_it(
    redis_url: str, fleet_name: str, routed: bool
) -> None:
    model = Model()
    model.go.clear()
    fleet = Fleet(fleet_name)
    fleet.model("m", model)
    fleet.model("only", RoutedModel(["m"]))
    fleet.gate("m", failure_threshold=1, concurrency=1)

    @fleet.agent("writer", retry=Retry(tries=1))
    async def write(turn: Turn) -> Outcome:
        await turn.model("only" if routed else "m", "hello", timeout=0.1)
        return turn.complete()

    async with desk(fleet, redis_url) as at:
        record = await at.served(await at.start())
        assert record.status == "dead" and record.error["failure"] == "llm_timeout"
        [gate] = await asyncio.to_thread(at.client.gates)
    assert (gate.state, gate.slots_used) == ("open", 0)


async def test_both_clients_show_the_same_gates_and_budgets(redis_url: str, fleet_name: str) -> None:
    fleet = newsroom(fleet_name, m=Model())
    fleet.gate("m", rpm=600, concurrency=4)
    fleet.gate("never-called", rpm=1)
    fleet.budget(project=5, tenant={"day": 10})
    async with desk(fleet, redis_url) as at:
        await at.served(await at.start(project_id="p1", tenant="acme"))
        async with AsyncClient(fleet=fleet.name, settings=at.runtime.settings) as client:
            gates, budgets = await client.gates(), await client.budgets("acme")
        assert [gate.name for gate in gates] == ["m", "never-called"] and gates[0].slots == 4.0
        assert gates[0].capacities == {"rpm": 600.0} and gates[1].declared_by == ""
        assert budgets == await asyncio.to_thread(at.client.budgets)
        assert {(line.level, line.account, line.limit) for line in budgets if line.account.startswith("usd")} == {
            ("tenant", "usd.day", 10_000_000),
            ("project:p1", "usd.total", 5_000_000),
        }
        assert [gate.slots_used for gate in await asyncio.to_thread(at.client.gates)] == [0, 0]


# What a call costs buckets of the author's own.


def painter(name: str, *, declared: Any = None, **told: Any) -> Fleet:
    fleet = Fleet(name)
    fleet.gate("m", rpm=100, buckets={"images": BucketSpec("images", 10, 0.001)}, costs=declared)

    @fleet.agent("writer", retry=Retry(tries=1))
    async def write(turn: Turn) -> Outcome:
        reply = await turn.model("m", [{"role": "user", "content": "two please"}], **told)
        return turn.complete(reply.text)

    return fleet


def words(request: ModelRequest) -> float:
    return len(str(request.messages[0]["content"]).split())


@pytest.mark.parametrize(
    ("declared", "told", "left"),
    [
        ({"images": words}, {}, 8),
        ({"images": 3}, {}, 7),
        ({"images": words}, {"costs": {"images": 5}}, 5),
        (None, {"costs": {"images": words, "rpm": 4}}, 8),
        (None, {}, 10),
    ],
)
async def test_buckets_of_ones_own_cost_what_the_author_says(
    declared: Any, told: Any, left: float, redis_url: str, fleet_name: str
) -> None:
    fleet = painter(fleet_name, declared=declared, **told)
    fleet.model("m", Model())
    async with desk(fleet, redis_url) as at:
        record = await at.served(await at.start())
        [gate] = await asyncio.to_thread(at.client.gates)
    assert record.status == "completed"
    assert gate.levels["images"] == pytest.approx(left, abs=0.1)
    assert gate.levels["rpm"] == pytest.approx(96 if "rpm" in told.get("costs", {}) else 99, abs=0.5)


async def test_a_bucket_of_ones_own_is_waited_for_and_flows_back_from_a_refused_call(
    redis_url: str, fleet_name: str
) -> None:
    fleet = painter(fleet_name, costs={"images": 6})
    refused = ModelFailed("m", "rate_limit", "slow down", made=False, throttled=True)
    model = Model(refused)
    fleet.model("m", model)
    async with desk(fleet, redis_url) as at:
        await at.served(await at.start())
        [gate] = await asyncio.to_thread(at.client.gates)
        assert gate.levels["images"] == pytest.approx(10, abs=0.1)
        first = await at.served(await at.start())
        second = await at.served(await at.start())
    assert (first.status, second.home, second.why, model.calls) == ("completed", "due", "gate:m", 2)


@pytest.mark.parametrize(("gates", "known"), [(["m"], "it has: rpm, images"), ([], "it has none")])
async def test_a_cost_of_a_bucket_that_no_gate_has_is_refused_before_the_call(
    gates: list[str], known: str, redis_url: str, fleet_name: str
) -> None:
    fleet = painter(fleet_name, costs={"image": 1})
    if not gates:
        fleet.gates.clear()
    model = Model()
    fleet.model("m", model)
    async with desk(fleet, redis_url) as at:
        record = await at.served(await at.start())
    assert (model.calls, record.status) == (0, "dead")
    assert "has no bucket 'image'" in str(record.error) and known in str(record.error)
    with pytest.raises(UnknownBucket, match="'image'; fix: declare it, or use one it has: rpm"):
        Fleet("other").gate("m", rpm=1, costs={"image": 1})


async def test_a_route_charges_each_model_what_its_own_gate_knows(redis_url: str, fleet_name: str) -> None:
    fleet = Fleet(fleet_name)
    fleet.gate("a", rpm=10, buckets={"images": 10})
    fleet.gate("b", rpm=10, buckets={"pages": 10})
    broken = Model(ModelFailed("a", "dependency_failed", "down"), ModelFailed("a", "dependency_failed", "down"))
    for label, client in (("a", broken), ("b", Model())):
        fleet.model(label, client)
    fleet.model("m", RoutedModel(["a", "b"], clients=fleet.models))

    @fleet.agent("writer", retry=Retry(tries=1))
    async def write(turn: Turn) -> Outcome:
        with pytest.raises(UnknownBucket, match="'films'; fix: declare it, or use one it has: images, pages, rpm"):
            await turn.model("m", "hello", costs={"films": 1})
        return turn.complete((await turn.model("m", "hello", costs={"images": 4, "pages": 7})).text)

    async with desk(fleet, redis_url) as at:
        record = await at.served(await at.start())
        levels = {gate.name: gate.levels for gate in await asyncio.to_thread(at.client.gates)}
    assert record.status == "completed"
    assert levels["a"]["images"] == pytest.approx(6, abs=0.1)  # it broke off: the call may have been made
    assert levels["b"]["pages"] == pytest.approx(3, abs=0.1)
