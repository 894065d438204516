"""What a fleet of real workers agrees on about models: rates, breakers, budgets, and what providers say."""

import time
from collections.abc import Iterator

import pytest

from techrevati.fleet.client import Client, Run
from techrevati.store.budgets import Budget, Unit
from techrevati.store.sync import SyncStore
from tests.acceptance.agents import FLEET
from tests.acceptance.limits import BUDGET, RATION
from tests.acceptance.support import Cluster, Process, eventually
from tests.model_server import ModelServer, model_server

LIMITS = {"ACCEPTANCE_LIMITS": "1"}


@pytest.fixture(scope="module")
def provider() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


def two_workers(cluster: Cluster, role: str, provider: ModelServer, *flags: str) -> tuple[Process, Process]:
    env = {**LIMITS, "MODEL_SERVER": provider.url}
    one, two = (cluster.worker(role, *flags, env=env, wait=False) for _ in range(2))
    cluster.wait_worker(one)
    cluster.wait_worker(two)
    return one, two


def calls(cluster: Cluster, model: str) -> list[tuple[int, float]]:
    """Give (process, time) of each call of a model, in order of time."""
    told = [line.split() for line in cluster.told(f"called {model} ")]
    return sorted(((int(pid), float(at)) for _, _, pid, at in told), key=lambda one: one[1])


def dial(client: Client, role: str, model: str, count: int, **options: str) -> list[Run]:
    return client.start_many(
        [{"agent": f"dial.{role}", "input": {"model": model}, **options} for _ in range(count)]  # type: ignore[typeddict-item]
    )


def test_two_workers_share_one_rate(cluster: Cluster, provider: ModelServer) -> None:
    two_workers(cluster, "sharers", provider, "-c", "10")
    client, asked = cluster.client("sharers"), time.time()
    runs = dial(client, "sharers", "rationed", 20)
    assert all(run.result(timeout=30)["text"] == "so" for run in runs)
    made = calls(cluster, "rationed")
    times = [at for _, at in made]
    assert len(made) == 20 and len({pid for pid, _ in made}) == 2, "each called, both served"
    for number, at in enumerate(times, 1):  # counted from before the first: a call may come late, never early
        room = RATION.capacity + RATION.per_second * (at - asked)
        assert number <= room, f"{number} calls in {at - asked:.2f} s"
    assert times[-1] - times[0] < 4 * 17 / RATION.per_second, "and the rate is used"


def test_a_turn_that_must_wait_long_parks_and_holds_no_place(cluster: Cluster, provider: ModelServer) -> None:
    client = cluster.client("parkers")
    cluster.worker("parkers", "-c", "1", env={**LIMITS, "MODEL_SERVER": provider.url})
    asked = time.time()
    first, second, third = dial(client, "parkers", "narrow", 3)
    runs = (first, second, third)
    parked = eventually(lambda: [run for run in runs if run.status().why == "gate:narrow"], "one parks")
    assert (parked[0].status().status, parked[0].status().home) == ("waiting", "due")
    assert client.start("count.parkers", {"turns": 2}).result(timeout=5) == [1, 2], "its only place is free"
    assert all(run.result(timeout=15)["failures"] == 0 for run in runs)
    times = [at for _, at in calls(cluster, "narrow")]
    assert [at - asked >= 2.0 * number for number, at in enumerate(times)] == [True] * 3
    parks = [event for run in runs for event in run.events() if event.type == "turn.parked"]
    assert 2 <= len(parks) <= 4, "a booked place is kept: whoever comes back is let out"


def test_a_breaker_that_one_worker_opened_stops_the_other(cluster: Cluster, provider: ModelServer) -> None:
    env = {**LIMITS, "MODEL_SERVER": provider.url}
    cluster.worker("breakers", "-c", "1", env=env)
    other = cluster.worker("others", "-c", "10", env=env)
    client = cluster.client("breakers")
    for run in dial(client, "breakers", "shaky", 3):
        eventually(lambda run=run: run.status().status == "dead", "it fails")  # type: ignore[misc]
    opened = calls(cluster, "shaky")[-1][1]
    late = dial(client, "others", "shaky", 5)
    eventually(lambda: all(run.status().why == "gate:shaky" for run in late), "they wait for the breaker", 7)
    assert len(calls(cluster, "shaky")) == 3, "nobody called meanwhile"
    cluster.open("shaky-mended")
    assert all(run.result(timeout=20)["text"] == "so" for run in late)
    after = [(pid, at) for pid, at in calls(cluster, "shaky") if at > opened]
    assert {pid for pid, _ in after} == {other.pid} and after[0][1] - opened > 7.9
    late_by = [at - opened for _, at in after]
    assert all(late >= 7.9 + number / 5 for number, late in enumerate(late_by)), f"no herd at the reopening: {late_by}"


def test_parallel_turns_never_overspend_together(cluster: Cluster, provider: ModelServer) -> None:
    two_workers(cluster, "spenders", provider, "-c", "20")
    client = cluster.client("spenders")
    runs = dial(client, "spenders", "costly", 40, tenant="thrifty")
    ids = [run.id for run in runs]
    eventually(lambda: all(status.is_terminal for status in cluster.statuses(client, ids)), "all end")
    statuses = [str(status) for status in cluster.statuses(client, ids)]
    made = len(calls(cluster, "costly"))
    with SyncStore(cluster.redis.url) as store:
        account = Budget(store, FLEET).look("thrifty").levels["tenant"].account(Unit.USD)
    assert (account.spent, account.reserved) == (55_000 * made, 0) and account.spent <= BUDGET
    assert made >= 16 and statuses.count("completed") == made and statuses.count("dead") == 40 - made
    refused = next(run for run, status in zip(runs, statuses, strict=True) if status == "dead")
    assert "usd budget of tenant" in str(refused.status().error)


def test_a_429_that_one_worker_hears_slows_the_whole_fleet(cluster: Cluster, provider: ModelServer) -> None:
    two_workers(cluster, "listeners", provider, "-c", "20")
    client = cluster.client("listeners")
    provider.busy_until = until = time.time() + 6.0
    [first] = dial(client, "listeners", "remote", 1)
    eventually(lambda: first.status().why == "gate:remote", "it was told to stay away, and parks")
    heard = len(provider.times)
    assert heard == 1
    later = dial(client, "listeners", "remote", 10)
    assert all(run.result(timeout=20) == {"text": "The tide turns.", "failures": 0} for run in [first, *later])
    assert min(provider.times[heard:]) >= until, "nobody asked before its time, though only one was told"
    assert len(provider.times) == 12


def test_who_dies_in_a_call_frees_slot_and_money_and_another_worker_goes_on(
    cluster: Cluster, provider: ModelServer
) -> None:
    """kill -9 in mid call: its slot and its reservation are leases; what it may have cost is charged once."""
    env = {**LIMITS, "MODEL_SERVER": provider.url}
    victim = cluster.worker("fallers", "-c", "1", env=env)
    client = cluster.client("fallers")
    job = {"model": "held", "timeout": 3}
    run = client.start("dial.fallers", job, tenant="fallen")
    [(pid, begun)] = eventually(lambda: calls(cluster, "held"), "it calls")
    [gate] = [gate for gate in client.gates() if gate.name == "held"]
    assert gate.slots_used == 1
    held = client.budgets(tenant="fallen")
    estimate = next(line.reserved for line in held if line.level == "tenant")
    assert estimate > 50_000
    victim.kill()
    cluster.open("held-opened")
    other = cluster.worker("fallers", "-c", "1", env=env, wait=False)
    assert run.result(timeout=60)["text"] == "so"
    assert run.status().worker == "" or f":{other.pid}:" in run.status().worker
    (_, _), (again, at) = calls(cluster, "held")
    assert again != pid, "another worker called"
    assert at - begun > 3.4, "no sooner than the slot's lease was over"

    def charged() -> tuple[int, int, int]:
        line = next(line for line in client.budgets(tenant="fallen") if line.level == "tenant")
        return line.spent, line.reserved, line.written_off

    assert eventually(
        lambda: charged() if charged()[1] == 0 else None, "the dead one's reservation is written off"
    ) == (
        7_000 + estimate,
        0,
        estimate,
    )
    eventually(lambda: not next(gate for gate in client.gates() if gate.name == "held").slots_used, "the slot is free")


def test_a_plain_function_waits_and_parks_as_well(cluster: Cluster, provider: ModelServer) -> None:
    cluster.worker("plains", "-c", "2", env={**LIMITS, "MODEL_SERVER": provider.url})
    client = cluster.client("plains")
    runs = [client.start("plain_dial.plains", {"model": "narrow"}) for _ in range(2)]
    assert [run.result(timeout=20) for run in runs] == ["so", "so"]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_other_pools_go_through_the_same_gate(cluster: Cluster, provider: ModelServer, pool: str) -> None:
    cluster.worker(f"gated-{pool}", "-P", pool, "-c", "2", env={**LIMITS, "MODEL_SERVER": provider.url})
    client = cluster.client(f"gated-{pool}")
    begun = time.time()
    runs = dial(client, f"gated-{pool}", "rationed", 8)
    assert all(run.result(timeout=20)["text"] == "so" for run in runs)
    times = [at for _, at in calls(cluster, "rationed") if at > begun]
    assert len(times) == 8 and times[-1] - begun > (8 - RATION.capacity) / RATION.per_second
