"""How safe a write is: what the server cannot do is refused, what was acknowledged is there (design 9.9)."""

import os
import pickle
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from techrevati.store import durability
from techrevati.store.aio import AsyncStore
from techrevati.store.durability import Durability, DurabilityUnknown, Server, Wait, plan
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.errors import StoreUnfit
from techrevati.store.saver import AsyncRedisSaver, RedisSaver
from techrevati.store.sync import SyncStore
from techrevati.store.talk import hold

OLD, NEW = (7, 0, 15), (7, 2, 4)


def until(done: Callable[[], bool], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pair() -> Iterator[tuple[EmbeddedRedis, EmbeddedRedis]]:
    """A primary, and a replica of it that is connected."""
    port = free_port()
    options = {"repl-diskless-sync-delay": "0"}  # or the first copy begins after five seconds
    with EmbeddedRedis(port=port, options=options) as primary, EmbeddedRedis(port=free_port()) as replica:
        with SyncStore(replica.url) as store:
            store.command("REPLICAOF", "127.0.0.1", port)
        with SyncStore(primary.url) as store:
            until(lambda: hold(store, durability.look()).replicas == 1)
        yield primary, replica


# The decision.


@pytest.mark.parametrize(
    ("server", "level", "command"),
    [
        (Server(OLD, False, "no", 0), Durability.MEMORY, None),
        (Server(OLD, True, "always", 0), Durability.FSYNC, None),
        (Server(NEW, True, "always", 0), Durability.FSYNC, None),
        (Server(NEW, True, "everysec", 0), Durability.FSYNC, ("WAITAOF", 1, 0, 1000)),
        (Server((8, 1), None, "", 0), Durability.FSYNC, ("WAITAOF", 1, 0, 1000)),
        (Server(OLD, False, "no", 2), Durability.REPLICATED, ("WAIT", 2, 1000)),
    ],
)
def test_a_reply_is_enough_or_a_wait_goes_behind(server: Server, level: Durability, command: object) -> None:
    wait = plan(server, level)
    assert (wait and wait.command) == command


@pytest.mark.parametrize(
    ("server", "level", "fix"),
    [
        (Server(OLD, True, "everysec", 0), Durability.FSYNC, "set appendfsync always, or upgrade"),
        (Server(OLD, None, "", 0), Durability.FSYNC, "set appendfsync always, or upgrade"),
        (Server(NEW, False, "always", 0), Durability.FSYNC, "set appendonly yes"),
        (Server(NEW, True, "no", 0), Durability.FSYNC, "set it to always or everysec"),
        (Server(NEW, True, "always", 0), Durability.REPLICATED, "add replicas"),
    ],
)
def test_what_the_server_cannot_do_is_refused_with_the_fix(server: Server, level: Durability, fix: str) -> None:
    with pytest.raises(StoreUnfit, match=fix):
        plan(server, level)


def test_more_replicas_than_there_are_is_refused() -> None:
    server = Server(OLD, True, "always", 1)
    with pytest.raises(StoreUnfit, match=r"wants 2 connected"):
        plan(server, Durability.REPLICATED, replicas=2)


def test_too_few_confirmations_leave_it_unknown() -> None:
    fsync = Wait(Durability.FSYNC, ("WAITAOF", 1, 0, 50), 1, 50)
    fsync.check("it", [1, 0])
    with pytest.raises(DurabilityUnknown) as unknown:
        fsync.check("it", [0, 0])
    error = unknown.value
    assert (error.confirmed, error.wanted, error.timeout_ms) == (0, 1, 50)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "it is committed" in str(error)


# Real servers.


async def test_a_server_that_syncs_each_second_is_refused_at_connect(server: EmbeddedRedis, fleet_name: str) -> None:
    with SyncStore(server.url) as store:
        if hold(store, durability.look()).version >= (7, 2):  # it has WAITAOF, so the wait goes behind the write
            with RedisSaver(store, fleet_name, durability="fsync") as saver:
                saver.put("t", {"n": 1})
            assert saver.get("t") is not None
            return
        with pytest.raises(StoreUnfit, match="appendfsync always"):
            RedisSaver(store, fleet_name, durability="fsync").open()
        with pytest.raises(StoreUnfit, match="add replicas"), RedisSaver(store, fleet_name, durability="replicated"):
            pass
        with pytest.raises(StoreUnfit):
            RedisSaver(store, fleet_name, durability="fsync").put("t", {})
        assert RedisSaver(store, fleet_name).get("t") is None
    with pytest.raises(StoreUnfit, match="appendfsync always"):
        async with AsyncRedisSaver(server.url, fleet_name, durability="fsync"):
            pass


async def test_a_server_that_can_wait_for_its_disk_confirms_each_put_or_is_told_on(
    server: EmbeddedRedis, fleet_name: str
) -> None:
    with EmbeddedRedis(executable=server.executable) as private, SyncStore(private.url) as store:
        if hold(store, durability.look()).version < (7, 2):
            with pytest.raises(StoreUnfit, match="appendfsync always"):  # an older server cannot
                RedisSaver(store, fleet_name, durability="fsync").open()
            return
        with RedisSaver(store, fleet_name, durability="fsync", wait_ms=5000) as saver:
            acknowledged = [saver.put("t", {"n": n}).id for n in range(5)]
        async with AsyncRedisSaver(private.url, fleet_name, durability="fsync", wait_ms=5000) as asaver:
            acknowledged += [(await asaver.put("t", {"n": n})).id for n in range(5, 8)]
            waited = re.search(r"cmdstat_waitaof:calls=(\d+),", store.command("INFO", "commandstats"))
            assert waited is not None and int(waited[1]) >= 8
            private.restart(sig=signal.SIGKILL)
            assert [record.id for record in await asaver.list("t")] == acknowledged[::-1]
        impatient = RedisSaver(store, fleet_name, durability="fsync", wait_ms=50).open()
        store.command("CONFIG", "SET", "appendfsync", "no")  # from now on nobody tells the disk to
        with pytest.raises(DurabilityUnknown, match=r"0 of 1 .* check the server's disk"):
            impatient.put("t", {"n": 8})
        found = saver.get("t")
        assert found is not None and found.state == {"n": 8}, "committed"
        with pytest.raises(StoreUnfit, match="always or everysec"):
            RedisSaver(store, fleet_name, durability="fsync").open()


def test_what_was_acknowledged_after_a_sync_survives_a_kill(server: EmbeddedRedis, fleet_name: str) -> None:
    with (
        EmbeddedRedis(executable=server.executable, options={"appendfsync": "always"}) as private,
        RedisSaver(private.url, fleet_name, durability="fsync") as saver,
    ):
        acknowledged = [saver.put("t", {"n": n, "text": "x" * 2000}).id for n in range(50)]
        private.restart(sig=signal.SIGKILL)
        assert [record.id for record in saver.list("t", limit=100)] == acknowledged[::-1]


async def test_a_replica_has_what_was_acknowledged(fleet_name: str) -> None:
    with pair() as (primary, replica), SyncStore(primary.url) as store, SyncStore(replica.url) as copy:
        saver, reader = RedisSaver(store, fleet_name, durability="replicated"), RedisSaver(copy, fleet_name)
        for n in range(20):
            put = saver.put("t", {"n": n, "text": "x" * 2000})
            assert reader.get("t", put.id) == put
        aside = AsyncStore(primary.url)
        asaver = AsyncRedisSaver(aside, fleet_name, durability="replicated")
        for n in range(20):
            put = await asaver.put("u", {"n": n})
            assert reader.get("u", put.id) == put
        await aside.command("SCRIPT", "FLUSH")
        put = await asaver.put("u", {"flushed": True})
        assert reader.get("u", put.id) == put
        store.command("SCRIPT", "FLUSH")
        assert reader.get("t") != saver.put("t", {"flushed": True}) == reader.get("t")
        await aside.close()


async def test_a_wait_that_times_out_says_committed_and_not_yet_safe(fleet_name: str) -> None:
    with pair() as (primary, replica), SyncStore(primary.url) as store:
        saver = RedisSaver(store, fleet_name, durability="replicated", wait_ms=50)
        saver.put("t", {"n": 0})
        assert replica.pid is not None
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DurabilityUnknown) as unknown:
                saver.put("t", {"n": 1})
            assert (unknown.value.confirmed, unknown.value.wanted) == (0, 1)
            found = saver.get("t")
            assert found is not None
            assert found.state == {"n": 1}
            # Sent again after a lost reply, over a new connection: it still has something to wait for.
            call = saver._desk.put(saver._desk.draft("t", {"n": 2}, None, None)).call
            assert store.run(call) == 3
            store._lines.close()
            assert store.run_then(call, ("WAIT", 1, 50)) == (3, 0)
            async with AsyncRedisSaver(primary.url, fleet_name, durability="replicated", wait_ms=50) as asaver:
                with pytest.raises(DurabilityUnknown):
                    await asaver.put("t", {"n": 3})
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        with SyncStore(replica.url) as copy:
            until(lambda: len(RedisSaver(copy, fleet_name).list("t")) == 4)
