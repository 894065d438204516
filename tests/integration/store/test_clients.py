"""The two clients: a flushed script cache, a Redis that restarts, callers that give up (protocol 3, 13)."""

import asyncio
import multiprocessing
import pickle
import socket
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from techrevati.store import calls, errors
from techrevati.store.aio import AsyncStore
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.records import Started
from techrevati.store.sync import SyncStore
from techrevati.store.wire import safe_url
from tests.integration.store.desk import Desk


def beginning(desk: Desk, name: str) -> calls.Call[Started]:
    spec = calls.StartSpec(
        run_id=name,
        tenant="acme",
        thread_id=name,
        role="writer",
        agent="writer",
        payload_digest="p",
        fields={},
    )
    return calls.start(desk.keys, spec)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# A server that lost its scripts.


def test_a_flushed_script_cache_is_refilled(desk: Desk) -> None:
    desk.store.command("SCRIPT", "FLUSH")
    desk.start("r1")
    desk.store.command("SCRIPT", "FLUSH")
    assert [made.run_id for made in desk.store.run_many([beginning(desk, f"many{n}") for n in range(5)])] == [
        f"many{n}" for n in range(5)
    ]
    assert desk.role().ready == 6


def test_a_pipeline_half_known_is_sent_whole_and_makes_nothing_twice(desk: Desk) -> None:
    desk.store.command("SCRIPT", "FLUSH")
    desk.start("first")  # run_start is known now, run_claim is not
    many: list[calls.Call[Any]] = [beginning(desk, "second"), calls.claim(desk.keys, desk.spec())]
    started, claimed = desk.store.run_many(many)
    assert claimed.grant is not None
    assert (started.run_id, desk.role().ready) == ("second", 1)


async def test_an_async_batch_survives_a_flushed_script_cache(desk: Desk, server: EmbeddedRedis) -> None:
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    await store.command("SCRIPT", "FLUSH")
    made = await asyncio.gather(*(store.run(beginning(desk, f"r{n}")) for n in range(20)))
    assert [one.run_id for one in made] == [f"r{n}" for n in range(20)]
    assert all(one.created for one in made)
    await store.close()


# The async pipeline.


async def test_what_gathers_while_a_batch_is_out_goes_together(desk: Desk, server: EmbeddedRedis) -> None:
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    await asyncio.gather(*(store.run(beginning(desk, f"r{n}")) for n in range(200)))
    assert store.batches <= 4
    assert desk.role().ready == 200
    await store.close()


async def test_a_cancelled_caller_does_not_break_the_pipeline(desk: Desk, server: EmbeddedRedis) -> None:
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    callers = [asyncio.ensure_future(store.run(beginning(desk, f"r{n}"))) for n in range(10)]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    done = await asyncio.gather(*callers, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in done] == [True, False] * 5
    assert [one.run_id for one in done if isinstance(one, Started)] == [f"r{n}" for n in range(1, 10, 2)]
    assert (await store.run(beginning(desk, "next"))).run_id == "next"
    await store.close()


async def test_an_error_reaches_only_its_caller(desk: Desk, server: EmbeddedRedis) -> None:
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    bad = calls.Call("run_sweep", desk.keys, ("not a number", "1", 1), calls.sweep(desk.keys).parse)
    asked: list[calls.Call[Any]] = [beginning(desk, "r1"), bad, beginning(desk, "r2")]
    good, fault, more = await asyncio.gather(*(store.run(call) for call in asked), return_exceptions=True)
    assert isinstance(fault, errors.ScriptFault)
    assert isinstance(good, Started)
    assert isinstance(more, Started)
    await store.close()


async def test_calls_wait_for_a_redis_that_restarts(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    desk, store = Desk(private_redis.url, fleet_name), AsyncStore(private_redis.url, patience=30)
    await store.run(beginning(desk, "before"))
    private_redis.stop()
    callers = [asyncio.ensure_future(store.run(beginning(desk, f"r{n}"))) for n in range(20)]
    while not store.failures:
        await asyncio.sleep(0.001)
    assert not any(caller.done() for caller in callers)
    await asyncio.to_thread(private_redis.start)
    made = await asyncio.gather(*callers)
    assert [one.run_id for one in made] == [f"r{n}" for n in range(20)]
    assert desk.role().ready == 21
    await store.close()
    desk.store.close()


def test_a_blocking_call_waits_for_a_redis_that_restarts(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    desk = Desk(private_redis.url, fleet_name)
    desk.start("before")
    private_redis.stop()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            private_redis.start()

    with SyncStore(private_redis.url, sleep=sleep) as store:
        assert store.run(beginning(desk, "after")).created
    assert len(slept) >= 3
    desk.store.close()


async def test_a_call_over_a_killed_connection_is_sent_again(desk: Desk, server: EmbeddedRedis) -> None:
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    await store.run(beginning(desk, "r1"))
    desk.store.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert (await store.run(beginning(desk, "r2"))).run_id == "r2"
    await store.close()


# A server that cannot be had.


async def test_an_unreachable_server_is_named(fleet_name: str) -> None:
    url = f"redis://:secret@127.0.0.1:{closed_port()}/0"
    desk = Desk(url, fleet_name)
    with SyncStore(url, patience=0.01) as store, pytest.raises(errors.StoreUnreachable) as refused:
        store.run(beginning(desk, "r1"))
    assert "secret" not in str(refused.value)
    astore = AsyncStore(url, patience=0.01)
    with pytest.raises(errors.StoreUnreachable) as arefused:
        await astore.run(beginning(desk, "r1"))
    assert "secret" not in str(arefused.value)
    await astore.close()
    desk.store.close()


async def test_a_wrong_password_is_denied_at_once(fleet_name: str) -> None:
    port = closed_port()
    with EmbeddedRedis(port=port) as server:
        desk = Desk(server.url, fleet_name)
        desk.store.command("CONFIG", "SET", "requirepass", "right")
        desk.store.close()
        for url in (f"redis://:wrong@127.0.0.1:{port}/0", f"redis://127.0.0.1:{port}/0"):
            with SyncStore(url, patience=60) as store, pytest.raises(errors.StoreDenied):
                store.run(beginning(desk, "r1"))
            astore = AsyncStore(url, patience=60)
            with pytest.raises(errors.StoreDenied):
                await astore.run(beginning(desk, "r1"))
            await astore.close()
        with SyncStore(f"redis://:right@127.0.0.1:{port}/0") as store:
            assert store.run(beginning(desk, "r1")).created


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@host:1/0", "redis://:***@host:1/0"),
        ("rediss://user:se%40cret@host:1/0?x=1", "rediss://user:***@host:1/0?x=1"),
        ("redis://user:se@cret@host/0", "redis://user:***@host/0"),
        ("unix:///run/redis.sock?db=0", "unix:///run/redis.sock?db=0"),
        ("unix:///run/redis.sock?db=0&password=secret", "unix:///run/redis.sock?db=0&password=***"),
    ],
)
def test_a_shown_url_hides_the_password(url: str, shown: str) -> None:
    assert safe_url(url) == shown


MADE: dict[str, Callable[[], errors.StoreError]] = {
    "StoreError": lambda: errors.StoreError("why"),
    "BadName": lambda: errors.BadName("role", "a b", "no spaces"),
    "BadAddress": lambda: errors.BadAddress("sentinel://", "it names no sentinel"),
    "StoreUnreachable": lambda: errors.StoreUnreachable("redis://h", "refused"),
    "StoreDenied": lambda: errors.StoreDenied("redis://h", "WRONGPASS"),
    "StoreUnfit": lambda: errors.StoreUnfit("Redis is out of memory", "raise maxmemory"),
    "FleetMismatch": lambda: errors.FleetMismatch("newsroom", "partitions", 64, 32),
    "UpgradeRequired": lambda: errors.UpgradeRequired(1, 2),
    "LeaseLost": lambda: errors.LeaseLost("r", "1.a", "2.b"),
    "RunNotFound": lambda: errors.RunNotFound("r"),
    "RunEnded": lambda: errors.RunEnded("r", "dead"),
    "NotRetriable": lambda: errors.NotRetriable("r", "running"),
    "ThreadBusy": lambda: errors.ThreadBusy("t", "r"),
    "ThreadInUse": lambda: errors.ThreadInUse("t", "r"),
    "ThreadNotFound": lambda: errors.ThreadNotFound("t", "acme"),
    "VersionGone": lambda: errors.VersionGone("t", 1, 3, 9),
    "LineFull": lambda: errors.LineFull("t", 100),
    "IdempotencyConflict": lambda: errors.IdempotencyConflict("k", "r"),
    "TooManyChildren": lambda: errors.TooManyChildren("r"),
    "UnknownCall": lambda: errors.UnknownCall("r", "c"),
    "AlreadyDecided": lambda: errors.AlreadyDecided("r", "c"),
    "AmbiguousCall": lambda: errors.AmbiguousCall("r", "c"),
    "StepInDoubt": lambda: errors.StepInDoubt("r", "k"),
    "PayloadTooLarge": lambda: errors.PayloadTooLarge("input", 10, 5),
    "NotJson": lambda: errors.NotJson("input", "object"),
    "ScriptFault": lambda: errors.ScriptFault("run_start", "[-99]"),
}


def test_every_error_class_is_made_here() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.StoreError) and value.__module__ == errors.__name__
    }
    assert found == set(MADE)


@pytest.mark.parametrize("name", sorted(MADE))
def test_an_error_survives_a_process_border(name: str) -> None:
    error = MADE[name]()
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


# The blocking client's own connections.


def test_an_idle_connection_that_was_closed_is_replaced_at_once(desk: Desk, server: EmbeddedRedis) -> None:
    def never(seconds: float) -> None:
        raise AssertionError(f"waited {seconds} s")

    with SyncStore(server.url, now_us=lambda: desk.now, sleep=never) as store:
        assert store.run(beginning(desk, "r1")).created
        desk.store.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert store.run(beginning(desk, "r2")).created


def test_a_fork_does_not_share_its_parents_connection(desk: Desk) -> None:
    desk.start("before")
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests of this process left threads
        child = context.Process(target=lambda: [desk.store.command("ECHO", "child") for _ in range(200)])
        child.start()
    assert [desk.store.command("ECHO", f"parent{n}") for n in range(200)] == [f"parent{n}" for n in range(200)]
    child.join(30)
    assert child.exitcode == 0


def test_one_of_many_that_fails_says_so_and_breaks_nothing(desk: Desk) -> None:
    desk.store.command("SET", "text", "x")
    with pytest.raises(errors.ScriptFault, match="WRONGTYPE"):
        desk.store.commands([("PING",), ("LPUSH", "text", "y"), ("PING",)])
    assert desk.store.commands([("GET", "text"), ("PING",)]) == ["x", "PONG"]
    desk.store.command("DEL", "text")
