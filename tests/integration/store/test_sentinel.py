"""The store by Sentinel: kill -9 of the master, and everything goes on at the replica (design 5, protocol 14)."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial

import pytest

from techrevati.store.aio import AsyncStore
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.errors import BadAddress, StoreUnreachable
from techrevati.store.gates import AsyncGate, BreakerSpec, BucketSpec, Gate, GateRefused, GateSpec, RedisTokenBucket
from techrevati.store.gates.events import Event, StoreBack, StoreRestarted, StoreTrouble
from techrevati.store.saver import RedisSaver
from techrevati.store.sentinel import SentinelAddress, parse
from techrevati.store.sync import SyncStore
from techrevati.store.wire import safe_url
from tests.sentinels import Watched, free_port, until

# What a URL says.


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("sentinel://a", SentinelAddress((("a", 26379),))),
        ("sentinel://a:1,b:2/3?master_name=m", SentinelAddress((("a", 1), ("b", 2)), "m", 3)),
        ("sentinel://a:1?master_name=m;sentinel://b:2", SentinelAddress((("a", 1), ("b", 2)), "m")),
        (
            "sentinel://:p%40w@a:1;b:2;sentinel://[::1]:3/0",
            SentinelAddress((("a", 1), ("b", 2), ("::1", 3)), password="p@w"),
        ),
        (
            "sentinel://u:p@a/0?sentinel_username=s&sentinel_password=q",
            SentinelAddress((("a", 26379),), username="u", password="p", sentinel_username="s", sentinel_password="q"),
        ),
    ],
)
def test_nodes_are_separated_by_commas_or_as_the_brokers(url: str, address: SentinelAddress) -> None:
    assert parse(url) == address
    shown = safe_url(url)
    assert not {"p@w", "p%40w", ":p@", "=q"} & {part for part in ("p@w", "p%40w", ":p@", "=q") if part in shown}
    assert parse(shown.replace("***", "")).nodes == address.nodes


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sentinel://", "no sentinel"),
        ("sentinel://a:port", "Port could not be cast"),
        ("sentinel://a/first", "'first' is no number"),
        ("sentinel://a?master=m", "option 'master' is none of master_name"),
        ("sentinel://a;redis://b", "begins with redis://"),
        ("sentinel://:secret@:1/0", "has no host"),
    ],
)
def test_an_address_that_cannot_be_read_is_refused_before_anything_is_sent(url: str, why: str) -> None:
    for make in (SyncStore, AsyncStore):
        with pytest.raises(BadAddress, match=why) as refused:
            make(url)
        assert "secret" not in str(refused.value)


# Failovers.


@pytest.fixture
def watched(server: EmbeddedRedis) -> Iterator[Watched]:
    """Two servers and a sentinel of each executable of this machine."""
    with Watched(executable=server.executable, password="pass@word", sentinel_password="s:p") as one:
        yield one


class Admitted:
    """Takes one token after another, and says when and by whom each was let out."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.by: list[tuple[float, str]] = []

    def once(self) -> str:
        try:
            admission = self.gate.admit({"rpm": 1}, timeout=5)
        except GateRefused as refused:
            said = refused.why
        else:
            self.gate.settle(admission)
            said = admission.by
        self.by.append((time.monotonic(), said))
        return said

    def is_back(self, events: list[Event]) -> bool:
        self.once()
        return any(isinstance(event, StoreBack) and event.gate == self.gate.name for event in events)

    def count(self, *by: str) -> int:
        return sum(said in by for _, said in self.by)


def followed(gate: AsyncGate) -> bool:
    return gate.core.view.is_followed


def in_step(store: SyncStore) -> bool:
    """Whether the replica has all that the master has acknowledged."""
    return int(store.command("WAIT", 1, 1000)) == 1


def test_gates_buckets_and_savers_go_on_at_the_new_master(watched: Watched, fleet_name: str) -> None:
    events: list[Event] = []
    with SyncStore(watched.url, patience=0.1) as store, SyncStore(watched.url, patience=20) as patient:
        saver, last = RedisSaver(patient, fleet_name), 0
        for last in range(3):
            saver.put("thread", {"last": last})
        gates = {}
        for mode in ("local", "fail_open", "fail_closed"):
            spec = GateSpec(
                name=mode,
                breaker=BreakerSpec(failure_threshold=3, cooldown=600),
                buckets=(BucketSpec("rpm", 10, 0.001),),
                on_store_error=mode,
                store_patience=0.1,
            )
            gates[mode] = Admitted(Gate(store, fleet_name, spec, on_event=events.append))
            assert [gates[mode].once() for _ in range(3)] == ["fleet"] * 3
        bucket = RedisTokenBucket("bucket", 5, 0.001, store=patient, fleet=fleet_name)
        assert [bucket.try_acquire() for _ in range(2)] == [True] * 2
        assert in_step(store)
        dead = watched.kill_master()
        # In between, each does what it was declared to.
        assert gates["local"].once() == "local"
        assert gates["fail_open"].once() == "open"
        assert gates["fail_closed"].once() == "store"
        took = watched.wait_promoted(dead)
        back = time.monotonic()
        for admitted in gates.values():
            until(partial(admitted.is_back, events), "the fleet's gate again", 5)
        print(f"\npromoted {took:.2f} s after the kill; all gates back {time.monotonic() - back:.2f} s later")
        for admitted in gates.values():  # what the replica had before is counted on
            while admitted.once() == "fleet":
                pass
            assert admitted.count("fleet") == 10, admitted.by
        assert 1 <= gates["local"].count("local") <= 10, "one twin admits no more than the limit"
        assert gates["fail_closed"].count("open", "local") == 0
        assert {event.gate for event in events if isinstance(event, StoreTrouble)} == set(gates)
        assert [bucket.try_acquire() for _ in range(4)] == [True] * 3 + [False]
        until(lambda: any(isinstance(event, StoreRestarted) for event in events), "another server is noticed")
        # A saver keeps what it had, and goes on.
        found = saver.get("thread")
        assert found is not None and found.state == {"last": last}
        saver.put("thread", {"last": "after"})
        # Who was the master comes back, and is not taken for it.
        watched.server(dead).start()
        saver.put("thread", {"last": "much later"})
        with SyncStore(watched.url) as another:
            again = RedisSaver(another, fleet_name).get("thread")
        assert again is not None and again.state == {"last": "much later"}
        for admitted in gates.values():
            admitted.gate.close()


async def test_an_event_loops_views_are_read_anew_after_a_failover(watched: Watched, fleet_name: str) -> None:
    spec = GateSpec(name="api", breaker=BreakerSpec(failure_threshold=2, cooldown=600))
    stores = [AsyncStore(watched.url, patience=20) for _ in range(2)]
    one, other = gates = [AsyncGate(store, fleet_name, spec, worker=f"w{n}") for n, store in enumerate(stores)]
    try:
        for gate in gates:
            await gate.settle(await gate.admit())
            await asyncio.to_thread(until, partial(followed, gate), "its news are heard")
        assert await stores[0].command("WAIT", 1, 1000) == 1
        dead = await asyncio.to_thread(watched.kill_master)
        # Calls that wait for the new master, each made once.
        counted = asyncio.gather(*(stores[0].command("SET", f"{fleet_name}:{n}", n) for n in range(50)))
        await asyncio.to_thread(watched.wait_promoted, dead)
        assert await asyncio.wait_for(counted, 5) == ["OK"] * 50
        for gate in gates:
            await gate.settle(await gate.admit())
            await asyncio.to_thread(until, partial(followed, gate), "they are heard again")
            await gate.settle(await gate.admit())
        for _ in range(2):
            await one.settle(await one.admit(), outcome="fail")

        def heard() -> bool:
            try:
                other.check()  # asks nobody
            except GateRefused:
                return True
            return False

        await asyncio.to_thread(until, heard, "the breaker's opening is heard over the new master")
    finally:
        for gate, store in zip(gates, stores, strict=True):
            await gate.close()
            await store.close()


async def test_a_server_that_takes_no_writes_now_is_asked_again_until_the_patience_ends(
    server: EmbeddedRedis, fleet_name: str
) -> None:
    spec = GateSpec(name="api", buckets=(BucketSpec("rpm", 10, 0.001),), on_store_error="fail_closed", store_patience=5)
    with (
        EmbeddedRedis(executable=server.executable) as own,
        SyncStore(own.url) as operator,
        SyncStore(own.url, patience=0) as store,
    ):
        astore, patient = AsyncStore(own.url, patience=0), AsyncStore(own.url)
        operator.command("CONFIG", "SET", "min-replicas-to-write", 1)
        with pytest.raises(StoreUnreachable, match="NOREPLICAS"):
            store.command("SET", "key", "value")
        operator.command("CONFIG", "SET", "min-replicas-to-write", 0)
        operator.command("REPLICAOF", "127.0.0.1", free_port())
        for command in (("SET", "key", "value"), ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "key")):
            with pytest.raises(StoreUnreachable, match=r"(?i)read.?only"):
                store.command(*command)
            with pytest.raises(StoreUnreachable, match=r"(?i)read.?only"):
                await astore.command(*command)
        gate = AsyncGate(patient, fleet_name, spec)
        admitted = asyncio.ensure_future(gate.admit({"rpm": 1}))
        await asyncio.sleep(0)
        operator.command("REPLICAOF", "NO", "ONE")
        assert (await asyncio.wait_for(admitted, 5)).by == "fleet"
        await gate.close()
        await patient.close()
        await astore.close()
