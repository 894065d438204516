"""Bodies of checkpoints: past Lua, in one transaction with what names them, and compressed behind the caller's back."""

import gc
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from techrevati.runtime.checkpoint import Granted, StaleClaimError
from techrevati.store.calls import Call
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.saver import AsyncRedisSaver, KeyRing, RedisSaver, squeezing
from techrevati.store.saver.squeezing import Big
from techrevati.store.sync import SyncStore

TEXT = "a checkpoint of many words, and of the same words. " * 400  # 20 KiB
SECRET = KeyRing("k", {"k": os.urandom(32)})


@pytest.fixture
def store(server: EmbeddedRedis) -> Iterator[SyncStore]:
    with SyncStore(server.url, patience=0.5) as one:
        yield one


def until(done: Callable[[], bool], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def bodies(store: SyncStore, fleet: str, thread: str = "t") -> dict[str, int]:
    """Give the size of each body of a thread, by id."""
    flat = store.command("HGETALL", f"saver:{{{fleet}:default:{thread}}}", binary=True)
    found = dict(zip(flat[::2], flat[1::2], strict=True))
    return {name[1:].decode(): len(body) for name, body in found.items() if name[:1] == b"b"}


@pytest.mark.parametrize("ring", [None, SECRET])
def test_what_is_big_is_put_as_it_is_and_compressed_a_moment_later(
    store: SyncStore, fleet_name: str, ring: KeyRing | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squeezing, "MOMENT", 60.0)
    with RedisSaver(store, fleet_name, encryption=ring) as saver:
        put = saver.put("t", {"text": TEXT})
        assert bodies(store, fleet_name)[put.id] > len(TEXT)
        reader = RedisSaver(store, fleet_name, encryption=ring)
        assert reader.get("t") == put
        assert saver.settle()
        assert bodies(store, fleet_name)[put.id] < 1000
        other = RedisSaver(store, fleet_name, encryption=ring)
        assert other.get("t") == put == reader.get("t") and other.list("t") == [put]


def test_what_is_small_is_compressed_before_it_is_put_and_all_is_if_asked_for(
    store: SyncStore, fleet_name: str
) -> None:
    with RedisSaver(store, fleet_name) as saver, RedisSaver(store, fleet_name, squeeze_from=1 << 20) as slow:
        small = saver.put("u", {"text": TEXT[:2000]})
        assert bodies(store, fleet_name, "u")[small.id] < 500
        put = slow.put("v", {"text": TEXT})
        assert bodies(store, fleet_name, "v")[put.id] < 1000, "before it was sent"


async def test_an_event_loop_has_it_too(server: EmbeddedRedis, store: SyncStore, fleet_name: str) -> None:
    async with AsyncRedisSaver(server.url, fleet_name) as saver:
        puts = [await saver.put(f"t{n}", {"text": TEXT, "n": n}) for n in range(3)]
        assert await saver.settle()
        assert all(bodies(store, fleet_name, f"t{n}")[put.id] < 1000 for n, put in enumerate(puts))
        again = await saver.put("t0", {"text": TEXT[::-1]})
    assert bodies(store, fleet_name, "t0")[again.id] < 1000, "closing does what is left"
    assert RedisSaver(store, fleet_name).get("t0") == again


def test_a_put_that_is_refused_leaves_no_body(store: SyncStore, fleet_name: str) -> None:
    one, other = RedisSaver(store, fleet_name), RedisSaver(store, fleet_name)
    claim = one.claim("t", "k", owner="a", ttl=10)
    assert isinstance(claim, Granted)
    one.release("t", "k", token=claim.token)
    with pytest.raises(StaleClaimError):
        one.put_claimed("t", "k", {"text": TEXT}, token=claim.token)
    assert bodies(store, fleet_name) == {}
    one.put("t", {"text": TEXT, "n": 1})
    other.put("t", {"text": TEXT, "n": 2})
    last = one.put("t", {"text": TEXT, "n": 3})  # a delta first, on what is not the last any more
    assert len(bodies(store, fleet_name)) == 3 and other.get("t") == last


def test_a_reader_that_comes_between_a_record_and_its_body_looks_again(store: SyncStore, fleet_name: str) -> None:
    writer = RedisSaver(store, fleet_name, squeeze_from=1 << 20)
    writer.put("t", {"text": os.urandom(60_000).hex()})

    class Late(SyncStore):
        """Something happens just before the bodies are read."""

        happens: Callable[[], Any] = staticmethod(lambda: None)

        def command(self, *args: Any, **more: Any) -> Any:
            if args[0] == "HMGET":
                happens, self.happens = self.happens, lambda: None
                happens()
            return super().command(*args, **more)

    with Late(store.url) as late:
        reader = RedisSaver(late, fleet_name)
        late.happens = lambda: writer.delete("t")
        assert reader.get("t") is None
        writer.put("t", {"text": os.urandom(60_000).hex(), "n": 0})

        def replace() -> None:
            writer.delete("t")
            writer.put("t", {"text": os.urandom(60_000).hex(), "n": 1})

        late.happens = replace
        found = reader.get("t")
        assert found is not None and found.state["n"] == 1
        assert [record.state["n"] for record in reader.list("t")] == [1]


def test_what_was_deleted_meanwhile_does_not_come_back(
    store: SyncStore, fleet_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squeezing, "MOMENT", 60.0)
    with RedisSaver(store, fleet_name) as saver:
        saver.put("t", {"text": TEXT})
        saver.delete("t")
        assert saver.settle()
        assert bodies(store, fleet_name) == {} and saver.get("t") is None


def test_a_thread_keeps_what_its_checkpoints_need_and_no_body_more(store: SyncStore, fleet_name: str) -> None:
    with RedisSaver(store, fleet_name, keep=3) as saver:
        for n in range(100):
            saver.put("t", {"text": os.urandom(3000).hex(), "n": n})
        kept = saver.list("t", limit=1000)
        assert 3 <= len(kept) < 100
        assert saver.settle() and bodies(store, fleet_name).keys() == {record.id for record in kept}


def test_without_redis_a_checkpoint_stays_as_it_was_put(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    with SyncStore(private_redis.url, patience=0.1) as store:
        saver = RedisSaver(store, fleet_name)
        saver.put("t", {"text": TEXT})
        assert saver.settle()

        class Down:
            """A desk behind which Redis goes away."""

            def squeezed(self, big: Big) -> Call[bool] | None:
                private_redis.stop()
                return saver._desk.squeezed(big)

        saver._squeezer.close()
        saver._squeezer._desk = Down()
        put = saver.put("u", {"text": TEXT})
        assert saver.settle(), "given up, not waited for"
        private_redis.start()
        assert RedisSaver(store, fleet_name).get("u") == put and bodies(store, fleet_name, "u")[put.id] > len(TEXT)


def test_who_brings_more_than_there_is_room_for_waits(
    store: SyncStore, fleet_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squeezing, "ROOM", 100_000)
    monkeypatch.setattr(squeezing, "MOMENT", 60.0)
    with RedisSaver(store, fleet_name) as saver:
        for n in range(5):  # the fifth is over the room
            saver.put(f"t{n}", {"text": TEXT})
        sizes = [size for n in range(5) for size in bodies(store, fleet_name, f"t{n}").values()]
        assert max(sizes) < 1000


def test_the_thread_ends_with_its_saver(store: SyncStore, fleet_name: str) -> None:
    before = set(threading.enumerate())

    def squeezers() -> int:
        return sum(thread.name == "squeezer" for thread in set(threading.enumerate()) - before)

    saver = RedisSaver(store, fleet_name)
    saver.put("t", {"text": TEXT[:2000]})
    assert squeezers() == 0, "none is made for what is small"
    saver.put("t", {"text": TEXT})
    assert squeezers() == 1
    saver.settle()
    del saver
    gc.collect()
    until(lambda: squeezers() == 0)


def _put(saver: RedisSaver, sent: Any) -> None:
    record = saver.put("child", {"text": TEXT})
    sent.send((record.id, saver.settle()))


def test_a_fork_compresses_what_is_its_own(store: SyncStore, fleet_name: str) -> None:
    with RedisSaver(store, fleet_name) as saver:
        saver.put("parent", {"text": TEXT})
        got, sent = multiprocessing.Pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 says it of any fork beside threads
            child = multiprocessing.get_context("fork").Process(target=_put, args=(saver, sent))
            child.start()
        assert got.poll(20)
        put, settled = got.recv()
        child.join(20)
        assert settled and bodies(store, fleet_name, "child")[put] < 1000
        assert saver.settle() and max(bodies(store, fleet_name, "parent").values()) < 1000
