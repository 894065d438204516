"""Bad input: one clear error that names the thing and the fix, and nothing written."""

import math
import re
import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from techrevati.fleet.aclient import AsyncClient
from techrevati.fleet.client import Client
from techrevati.fleet.registry import UnknownRole
from techrevati.fleet.settings import BadSettings, load_settings
from techrevati.runtime.errors import TechrevatiError
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.errors import (
    BadName,
    FleetMismatch,
    IdempotencyConflict,
    NotJson,
    PayloadTooLarge,
    StoreDenied,
    StoreUnreachable,
    ThreadBusy,
)
from tests.acceptance.agents import FLEET
from tests.acceptance.support import Cluster


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Redis alone: whatever changes there, a start has written."""
    with Cluster(tmp_path_factory.mktemp("quiet")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def door(quiet: Cluster) -> Client:
    client = quiet.client()
    client.start("count.alpha", {}, thread_id="busy", idempotency_key="used")
    return client


ROWS: list[tuple[Callable[[Client], object], type[Exception], str]] = [
    (
        lambda c: c.start("counter", {}),
        UnknownRole,
        r"role 'counter' is unknown in fleet 'accept'; it has: .*count\.alpha",
    ),
    (
        lambda c: c.start("count.alpha", "x" * (1 << 20)),
        PayloadTooLarge,
        "input is 1,048,578 bytes, over the limit of 1,048,576; fix: .*TECHREVATI_MAX_PAYLOAD",
    ),
    (
        lambda c: c.start("count.alpha", {"when": datetime(2026, 1, 1)}),
        NotJson,
        r"input is not JSON \(.*datetime.*fix: use",
    ),
    (lambda c: c.start("count.alpha", {"x": math.nan}), NotJson, "input is not JSON"),
    (lambda c: c.start("count.alpha", {}, metadata={"x": {1}}), NotJson, "metadata is not JSON .*set"),
    (lambda c: c.start("count.alpha", {}, delay=-1), ValueError, "delay=-1 is refused: give seconds"),
    (lambda c: c.start("count.alpha", {}, deadline=-0.5), ValueError, "deadline=-0.5 is refused"),
    (
        lambda c: c.start("count.alpha", {}, eta=datetime(2026, 1, 1)),
        ValueError,
        "eta=.* has no time zone; fix: datetime",
    ),
    (lambda c: c.start("count.alpha", {}, priority=5000), ValueError, "priority=5000 is refused: use -1000"),
    (lambda c: c.start("count.alpha", {}, tenant="a:b"), BadName, "tenant 'a:b' is refused: use 1-200 bytes"),
    (lambda c: c.start("count.alpha", {}, thread_id="a{b"), BadName, "thread_id 'a{b' is refused: use 1-200 bytes"),
    (lambda c: c.start("count.alpha", {}, thread_id="sub-agent-1"), BadName, "thread_id 'sub-agent-1' is refused"),
    (lambda c: c.start("count.alpha", {}, idempotency_key=""), BadName, "idempotency_key '' is refused"),
    (
        lambda c: c.start("count.alpha", {}, thread_id="busy", on_busy="reject"),
        ThreadBusy,
        "thread 'busy' has the active run .*; fix: wait for it, or start with on_busy='enqueue', 'interrupt' or",
    ),
    (
        lambda c: c.start("count.alpha", {}, thread_id="busy", on_busy="wait"),  # type: ignore[arg-type]
        ValueError,
        "on_busy='wait' is refused: use reject, enqueue, interrupt, rollback",
    ),
    (
        lambda c: c.start("count.alpha", {"other": 1}, thread_id="busy", idempotency_key="used"),
        IdempotencyConflict,
        "idempotency key 'used'",
    ),
    (
        lambda c: c.start_many([{"agent": "count.alpha", "input": {}}, {"agent": "count.nowhere", "input": {}}]),
        UnknownRole,
        "count.nowhere",
    ),
    (lambda c: c.run("42"), BadName, r"run_id '42' is refused: use the id that start\(\) gave"),
    (lambda c: c.run("42.1"), BadName, "run_id '42.1' is refused"),
]


@pytest.mark.parametrize(("ask", "error", "says"), ROWS, ids=[row[2][:30] for row in ROWS])
def test_refused_with_the_fix_and_nothing_written(
    quiet: Cluster, door: Client, ask: Callable[[Client], object], error: type[Exception], says: str
) -> None:
    before = quiet.dump()
    with pytest.raises(error, match=says):
        ask(door)
    assert quiet.dump() == before
    quiet.healthy()


def test_unreachable_redis_is_named(tmp_path: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
        client = Client(url, fleet=FLEET)
        client.store._patience = 0.2
        with pytest.raises(
            StoreUnreachable, match=rf"Redis at {url} cannot be reached .*fix: start it, or set TECHREVATI_"
        ):
            client.start("count.alpha", {})
        client.close()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_wrong_password_is_named_without_showing_it(asynchronous: bool) -> None:
    with EmbeddedRedis() as server:
        client = Client(server.url, fleet=FLEET)
        client.store.command("CONFIG", "SET", "requirepass", "right")
        client.close()
        url = server.url.replace("unix://", "unix://:wrong-one@")
        with pytest.raises(StoreDenied, match=r"refused us .*fix: check the user and password") as told:
            if asynchronous:
                async with AsyncClient(url, fleet=FLEET) as other:
                    await other.start("count.alpha", {})
            else:
                with Client(url, fleet=FLEET) as client:
                    client.start("count.alpha", {})
        assert "wrong-one" not in str(told.value)
        server.stop()


def test_other_partitions_than_the_fleet_has_are_refused(quiet: Cluster, door: Client) -> None:
    settings = load_settings(redis_url=quiet.redis.url, partitions=7)
    with (
        Client(fleet=FLEET, settings=settings) as client,
        pytest.raises(FleetMismatch, match="was created with partitions=4, this process says 7; fix: use partitions=4"),
    ):
        client.start("count.alpha", {})


def test_bad_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TECHREVATI_LEASE_TTL", "soon")
    with pytest.raises(BadSettings, match="TECHREVATI_LEASE_TTL='soon'"):
        load_settings()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("unix:///nowhere/redis.sock", "Redis at unix:///nowhere/redis.sock cannot be reached .*fix: start it"),
        ("mysql://localhost", "mysql"),
    ],
)
def test_worker_without_its_store_says_so_and_ends(quiet: Cluster, url: str, says: str) -> None:
    process = quiet.worker("alpha", wait=False, env={"TECHREVATI_REDIS_URL": url})
    assert process.wait_exit(40) != 0
    assert re.search(says, process.log()), process.log()


def test_every_refusal_is_one_of_ours() -> None:
    assert all(issubclass(error, TechrevatiError | ValueError) for _, error, _ in ROWS)
