"""RedisSaver on real servers: the contract of the savers of one process, and what only a shared one can do."""

import asyncio
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from techrevati.runtime import AgentSession, Checkpoint, CheckpointSaver, InMemorySaver, UsageSnapshot
from techrevati.runtime.checkpoint import Done, Granted, Held, KeyedCheckpointSaver, StaleClaimError
from techrevati.store.aio import AsyncStore
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.errors import BadName, PayloadTooLarge, StoreUnreachable
from techrevati.store.saver import AsyncRedisSaver, KeyRing, RedisSaver, UnknownKey, WrongKey
from techrevati.store.sync import SyncStore, connect

S = 1_000_000
BEGIN = 1_700_000_000 * S


class Shelf:
    """A server, a fleet of one's own, and a hand on the clock."""

    def __init__(self, url: str, fleet: str) -> None:
        self.now, self.fleet = BEGIN, fleet
        self.store = SyncStore(url, now_us=lambda: self.now, patience=0.3)

    def saver(self, **options: Any) -> RedisSaver:
        """Another process's saver: it remembers nothing of what others did."""
        return RedisSaver(self.store, self.fleet, **options)

    def names(self, thread: str = "t", tenant: str = "default") -> list[str]:
        return sorted(self.store.redis.scan_iter(match=f"saver:{{{self.fleet}:{tenant}:{thread}}}*"))


@pytest.fixture
def shelf(server: EmbeddedRedis, fleet_name: str) -> Iterator[Shelf]:
    one = Shelf(server.url, fleet_name)
    with one.store:
        yield one


@pytest.fixture
def saver(shelf: Shelf) -> RedisSaver:
    return shelf.saver()


# The contract, as the savers of one process have it.


def test_it_fulfils_both_protocols(saver: RedisSaver) -> None:
    assert isinstance(saver, CheckpointSaver)
    assert isinstance(saver, KeyedCheckpointSaver)


def test_records_round_trip(saver: RedisSaver, shelf: Shelf) -> None:
    put = saver.put("t", {"a": [1, {"b": None}]}, parent_id="x", metadata={"m": 1})
    for reader in (saver, shelf.saver()):
        assert reader.get("t") == put
        assert reader.get("t", put.id) == put
        assert reader.list("t") == [put]
    assert Checkpoint.from_dict(put.to_dict()) == put
    assert saver.put("t", {}).metadata == {}
    assert len(put.id) == 32
    assert shelf.saver().get("t", put.id) == put


def test_threads_and_tenants_are_apart(saver: RedisSaver, shelf: Shelf) -> None:
    mine = saver.put("t", {"n": 1})
    saver.put("u", {"n": 2})
    other = shelf.saver(tenant="zeta")
    assert saver.get("u", mine.id) is None
    assert other.get("t") is other.get("t", mine.id) is None
    assert saver.get("nobody") is None
    saver.delete("t")
    saver.delete("t")
    assert saver.get("t") is None
    assert saver.list("t") == []
    found = saver.get("u")
    assert found is not None
    assert found.state == {"n": 2}


def test_list_pages_newest_first_in_put_order(saver: RedisSaver, shelf: Shelf) -> None:
    ids = [saver.put("t", {"n": n, "text": "a" * 100}).id for n in range(150)]
    for reader in (saver, shelf.saver()):
        assert [record.id for record in reader.list("t", limit=5)] == ids[:-6:-1]
        assert [record.state["n"] for record in reader.list("t", limit=1000)] == list(range(149, -1, -1))
        assert [record.id for record in reader.list("t", before=ids[3], limit=9)] == ids[2::-1]
        assert [record.id for record in reader.list("t", before=ids[100], limit=70)] == ids[99:29:-1]
        assert len(reader.list("t")) == 10
        assert reader.list("t", limit=0) == reader.list("t", limit=-1) == []
        assert reader.list("t", before="unknown") == []
        assert reader.list("t", before=ids[0]) == []


def test_savers_keep_copies(saver: RedisSaver) -> None:
    state: dict[str, Any] = {"deep": {"list": [1]}}
    metadata: dict[str, Any] = {"tags": ["a"]}
    put = saver.put("t", state, metadata=metadata)
    state["deep"]["list"].append(2)
    metadata["tags"].append("b")
    put.state["deep"]["list"].append(3)
    for _ in range(2):
        found = saver.get("t")
        assert found is not None
        assert (found.state, found.metadata) == ({"deep": {"list": [1]}}, {"tags": ["a"]})
        found.state["deep"]["list"].append(4)
        found.metadata["tags"].append("c")
    assert saver.list("t")[0].state == {"deep": {"list": [1]}}


@pytest.mark.parametrize("bad", [{1, 2}, b"x", object(), 1j, UsageSnapshot()])
def test_what_is_not_json_is_refused(saver: RedisSaver, bad: Any, shelf: Shelf) -> None:
    with pytest.raises((TypeError, ValueError)):
        saver.put("t", {"x": [bad]})
    with pytest.raises((TypeError, ValueError)):
        saver.put("t", {}, metadata={"x": bad})
    assert shelf.names() == []


def test_what_json_has_words_for_is_kept_as_json_says_it(saver: RedisSaver, shelf: Shelf) -> None:
    odd: dict[str, Any] = {
        "tuple": (1, 2),
        "inf": [math.inf],
        "null": None,
        "big": 10**40,
        "half": "\ud800",
        "ü": "\x00ü",
        "f": 0.1,
    }
    saver.put("t", {**odd, "keys": {True: "b", None: "c", 1.5: "d", 2: "e"}})
    found = shelf.saver().get("t")
    assert found is not None
    keys = {"true": "b", "null": "c", "1.5": "d", "2": "e"}
    assert found.state == {**odd, "tuple": [1, 2], "keys": keys}
    saver.put("t", {"nan": math.nan})
    found = shelf.saver().get("t")
    assert found is not None
    assert math.isnan(found.state["nan"])


def test_keys_are_found_however_old(saver: RedisSaver, shelf: Shelf) -> None:
    saver.put("t", {"n": 0}, metadata={"idempotency_key": "k"})
    for n in range(150):
        saver.put("t", {"n": n + 1})
    for reader in (saver, shelf.saver()):
        found = reader.find("t", "k")
        assert found is not None
        assert found.state == {"n": 0}
    saver.put("t", {"n": "newer"}, metadata={"idempotency_key": "k"})
    newer = saver.find("t", "k")
    assert newer is not None
    assert newer.state == {"n": "newer"}
    assert saver.find("u", "k") is None
    assert saver.find("t", "") is None
    saver.delete("t")
    assert saver.find("t", "k") is None


def test_one_owner_at_a_time_and_fencing(saver: RedisSaver, shelf: Shelf) -> None:
    other = shelf.saver()
    first = saver.claim("t", "k", owner="a", ttl=10)
    assert isinstance(first, Granted)
    assert other.claim("t", "k", owner="b:c", ttl=10) == Held(10.0)
    assert isinstance(other.claim("t", "other", owner="b", ttl=10), Granted)
    shelf.now += 11 * S
    second = other.claim("t", "k", owner="b:c", ttl=10)
    assert isinstance(second, Granted)
    assert second.token > first.token
    with pytest.raises(StaleClaimError) as caught:
        saver.put_claimed("t", "k", {"by": "a"}, token=first.token)
    assert (caught.value.held, caught.value.current) == (first.token, second.token)
    assert saver.get("t") is None
    saver.release("t", "k", token=first.token)
    assert isinstance(saver.claim("t", "k", owner="c", ttl=10), Held)
    stored = other.put_claimed("t", "k", {"by": "b"}, token=second.token, metadata={"m": 1})
    assert stored.metadata == {"m": 1, "idempotency_key": "k"}
    assert saver.claim("t", "k", owner="c", ttl=10) == Done(stored)
    assert saver.find("t", "k") == stored
    with pytest.raises(StaleClaimError) as again:
        saver.put_claimed("t", "k", {}, token=second.token)
    assert again.value.current == 0


def test_released_and_reclaimed_tokens_keep_growing(saver: RedisSaver, shelf: Shelf) -> None:
    tokens = []
    for owner in ("a", "b", "b"):
        claim = saver.claim("t", "k", owner=owner, ttl=10)
        assert isinstance(claim, Granted)
        tokens.append(claim.token)
        if owner == "a":
            saver.release("t", "k", token=claim.token)
    saver.delete("t")
    shelf.now -= 3600 * S  # a failover stepped the server's clock back
    claim = saver.claim("t", "k", owner="z", ttl=10)
    assert isinstance(claim, Granted)
    tokens.append(claim.token)
    assert tokens == sorted(set(tokens))


def test_threads_share_a_saver(saver: RedisSaver) -> None:
    barrier = threading.Barrier(6)
    wins: list[int] = []

    def work(n: int) -> int:
        barrier.wait()
        for step in range(15):
            saver.put(f"t{n % 2}", {"n": step})
            saver.list("t0", limit=3)
            claim = saver.claim("shared", f"k{step}", owner=f"o{n}", ttl=60)
            if isinstance(claim, Granted):
                wins.append(step)
                saver.put_claimed("shared", f"k{step}", {"by": n}, token=claim.token)
        return 15

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 90
    assert sorted(wins) == list(range(15))
    assert len(saver.list("t0", limit=100)) == len(saver.list("t1", limit=100)) == 45


RACER = """
import sys
from techrevati.runtime.checkpoint import Granted
from techrevati.store.saver import RedisSaver
with RedisSaver(sys.argv[1], sys.argv[2]) as saver:
    for n in range(15):
        saver.put("t", {"n": n, "by": sys.argv[3], "text": "x" * 300})
        claim = saver.claim("t", f"k{n}", owner=sys.argv[3], ttl=60)
        if isinstance(claim, Granted):
            saver.put_claimed("t", f"k{n}", {"by": sys.argv[3]}, token=claim.token)
            print(n)
"""


def test_processes_race_for_keys_and_append_to_one_thread(shelf: Shelf, saver: RedisSaver) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, shelf.store.url, shelf.fleet, str(n)], stdout=subprocess.PIPE, text=True
        )
        for n in range(3)
    ]
    won = [int(line) for racer in racers for line in racer.communicate(timeout=60)[0].split()]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sorted(won) == list(range(15))
    found = saver.list("t", limit=1000)
    assert len(found) == 60
    assert sorted(r.state["n"] for r in found if "n" in r.state) == sorted([*range(15)] * 3)


def test_sessions_replay_from_it(saver: RedisSaver, shelf: Shelf) -> None:
    paid: list[int] = []

    def call() -> dict[str, int]:
        paid.append(1)
        return {"answer": 42}

    for reader in (saver, shelf.saver()):
        with AgentSession("writer", "draft", saver=reader).session(thread_id="essay") as session:
            usage = UsageSnapshot(input_tokens=5)
            assert session.run_turn(call, model="m", usage=usage, idempotency_key="k") == ({"answer": 42}, usage)
    assert len(paid) == 1


# Deltas.


def test_every_version_of_a_thread_that_two_savers_write_reads_as_it_was_put(shelf: Shelf) -> None:
    writers, model = (shelf.saver(), shelf.saver()), InMemorySaver()
    state: dict[str, Any] = {"messages": [], "draft": "", "n": 0}
    ids = []
    for n in range(200):
        state["messages"].append({"role": "user", "content": f"message {n} " * 9})
        state["n"] = n
        if n % 7 == 0:
            state[f"k{n}"] = list(range(n))
        if n % 31 == 30:
            state["messages"] = state["messages"][-3:]
            state.pop(f"k{n - n % 7}", None)
        if n % 50 == 49:
            state = dict(reversed(state.items()))
        ids.append(writers[n % 5 == 0].put("t", state).id)
        model.put("t", state)
    reader = shelf.saver()
    theirs = model.list("t", limit=1000)
    assert [record.state for record in reader.list("t", limit=1000)] == [record.state for record in theirs]
    assert [list(record.state) for record in reader.list("t", limit=1000)] == [list(r.state) for r in theirs]
    for place in (0, 63, 64, 65, 130, 199):
        one = reader.get("t", ids[place])
        assert one is not None
        assert one.state == theirs[199 - place].state


def test_what_a_put_writes_is_what_changed(shelf: Shelf, saver: RedisSaver) -> None:
    state = {"messages": [os.urandom(500).hex() for _ in range(200)], "n": 0}
    saver.put("t", state)
    sizes = []
    for n in range(100):
        state["n"] = n
        state["messages"].append(f"one more {n}")  # type: ignore[attr-defined]
        saver.put("t", state)
        sizes.append(shelf.store.redis.hstrlen(shelf.names()[0], f"b{saver.get('t').id}"))  # type: ignore[union-attr]
    *deltas, _two, _more, whole = sorted(sizes)
    assert whole > 50_000  # one of 32 is a whole one, so that no chain is long
    assert max(deltas) < 300
    assert shelf.saver().get("t") == saver.get("t")


def test_older_checkpoints_go_when_few_are_kept(shelf: Shelf) -> None:
    saver = shelf.saver(keep=10)
    ids = [saver.put("t", {"n": n, "text": "x" * 900}, metadata={"idempotency_key": f"k{n}"}).id for n in range(300)]
    reader = shelf.saver()
    found = reader.list("t", limit=1000)
    assert 10 <= len(found) <= 10 + 2 * 32
    assert [record.id for record in found] == ids[: -len(found) - 1 : -1]
    assert reader.get("t", ids[0]) is None
    assert reader.find("t", "k0") is None
    assert reader.find("t", "k299") == found[0]
    kept = shelf.store.redis.hkeys(shelf.names()[0])
    assert len([name for name in kept if name.isdigit()]) == len(found)
    assert len(kept) == 3 * len(found) + 5


def test_a_thread_is_forgotten_after_its_ttl_and_kept_while_used(shelf: Shelf) -> None:
    saver = shelf.saver(ttl=100)
    saver.put("t", {"n": 1}, metadata={"idempotency_key": "k"})
    saver.claim("t", "other", owner="a", ttl=5)
    assert len(shelf.names()) == 3
    assert all(90 < shelf.store.redis.ttl(key) <= 100 for key in shelf.names())
    for key in shelf.names():
        shelf.store.redis.expire(key, 50)
    shelf.now += 50 * S
    saver.put("t", {"n": 2})
    assert all(90 < shelf.store.redis.ttl(key) <= 100 for key in shelf.names())
    for_ever = shelf.saver(ttl=None)
    for_ever.put("u", {"n": 1})
    for_ever.delete("u")
    assert 0 < shelf.store.redis.ttl(shelf.names("u")[0]) <= 86_400
    for_ever.put("u", {"n": 1})
    assert all(shelf.store.redis.ttl(key) == -1 for key in shelf.names("u"))


def test_a_saver_whose_memory_is_behind_a_lost_thread_starts_anew(shelf: Shelf, saver: RedisSaver) -> None:
    for n in range(3):
        saver.put("t", {"n": n, "text": "x" * 500})
    for key in shelf.names():
        shelf.store.redis.delete(key)  # it expired, or Redis lost it
    assert saver.get("t") is None
    put = saver.put("t", {"n": 9, "text": "x" * 500})
    assert shelf.saver().get("t") == put == saver.get("t")


def test_memory_is_bounded(shelf: Shelf) -> None:
    saver = shelf.saver(memory=50_000)
    for n in range(100):
        saver.put(f"t{n}", {"text": "x" * 5_000})
        saver.put(f"t{n}", {"text": "x" * 5_001})
    assert 5_000 <= saver._desk._remembered <= 50_000
    assert all(len(saver.get(f"t{n}").state["text"]) == 5_001 for n in range(100))  # type: ignore[union-attr]


# Encryption.

OLD, NEW = os.urandom(32), os.urandom(16)


def test_keys_rotate_and_old_checkpoints_stay_readable(shelf: Shelf) -> None:
    plain = shelf.saver().put("t", {"secret": "zero"})
    old = shelf.saver(encryption=KeyRing("2025", {"2025": OLD})).put("t", {"secret": "one " * 500})
    ring = KeyRing("2026", {"2025": OLD, "2026": NEW})
    both = shelf.saver(encryption=ring)
    new = both.put("t", {"secret": "two"})
    assert both.list("t") == [new, old, plain]
    with connect(shelf.store.url, decode_responses=False) as raw:
        kept = [raw.hget(shelf.names()[0], f"b{put.id}") for put in (plain, old, new)]
    assert [put.id.encode() in record for put, record in zip((plain, old, new), kept, strict=True)] == [
        True,
        False,
        False,
    ]
    assert shelf.saver(encryption=KeyRing("2026", {"2026": NEW})).get("t", new.id) == new


def test_a_missing_or_wrong_key_is_named(shelf: Shelf) -> None:
    put = shelf.saver(encryption=KeyRing("2025", {"2025": OLD})).put("t", {"a": 1})
    with pytest.raises(UnknownKey, match=r"'2025'.*2026"):
        shelf.saver(encryption=KeyRing("2026", {"2026": NEW})).get("t")
    with pytest.raises(UnknownKey, match="has none"):
        shelf.saver().get("t", put.id)
    with pytest.raises(WrongKey, match="'2025'"):
        shelf.saver(encryption=KeyRing("2025", {"2025": NEW})).list("t")


def test_sealed_bytes_do_not_open_in_another_tenants_place(shelf: Shelf) -> None:
    ring = KeyRing("k", {"k": OLD})
    shelf.saver(encryption=ring).put("t", {"a": 1})
    for key in shelf.names():
        shelf.store.redis.copy(key, key.replace(":default:", ":zeta:"))
    with pytest.raises(WrongKey):
        shelf.saver(encryption=ring, tenant="zeta").get("t")


# Bad input.


def test_bad_input_is_refused_before_anything_is_written(shelf: Shelf, saver: RedisSaver) -> None:
    for bad in ("", "a{b", "a}b", "a\nb", "ü" * 101, "\ud800"):
        with pytest.raises(BadName):
            saver.put(bad, {})
        with pytest.raises(BadName):
            saver.claim(bad, "k", owner="o", ttl=1)
    with pytest.raises(BadName):
        shelf.saver(tenant="a:b")
    for options in ({"ttl": 0}, {"ttl": -5}, {"keep": 0}, {"durability": "eternal"}):
        with pytest.raises(ValueError, match=r"ttl|keep|eternal"):
            shelf.saver(**options)
    with pytest.raises(ValueError, match="ttl"):
        saver.claim("t", "k", owner="o", ttl=0)
    with pytest.raises(PayloadTooLarge):
        shelf.saver(max_bytes=1000).put("t", {"a": "x" * 1001})
    assert list(shelf.store.redis.scan_iter(match=f"*{shelf.fleet}*")) == []


# A store in trouble.


def test_a_put_whose_reply_was_lost_is_stored_once(shelf: Shelf, saver: RedisSaver) -> None:
    saver.put("t", {"n": 0})
    call = saver._desk.put(saver._desk.draft("t", {"n": 1}, None, None)).call
    assert [shelf.store.run(call) for _ in range(3)] == [2, 2, 2]
    assert [record.state["n"] for record in shelf.saver().list("t")] == [1, 0]


def test_checkpoints_survive_a_kill_and_a_flushed_script_cache(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    shelf = Shelf(private_redis.url, fleet_name)
    saver = shelf.saver()
    put = saver.put("t", {"n": 1})
    shelf.store.command("SCRIPT", "FLUSH")
    private_redis.restart()
    assert saver.get("t") == put
    shelf.store.command("SCRIPT", "FLUSH")
    assert shelf.saver().get("t", put.id) == put
    private_redis.stop()
    with pytest.raises(StoreUnreachable):
        saver.put("t", {"n": 2})
    private_redis.start()
    assert [record.state["n"] for record in saver.list("t")] == [1]
    shelf.store.close()


async def test_an_event_loop_has_the_same_saver(server: EmbeddedRedis, fleet_name: str) -> None:
    store = AsyncStore(server.url)
    saver = AsyncRedisSaver(store, fleet_name)
    await asyncio.gather(*(saver.put("t", {"n": n, "text": "x" * 2000}) for n in range(50)))
    found = await saver.list("t", limit=100)
    assert sorted(record.state["n"] for record in found) == list(range(50))
    assert await saver.get("t") == await saver.get("t", found[0].id) == found[0]
    claims = await asyncio.gather(*(saver.claim("t", "k", owner=f"o{n}", ttl=10) for n in range(5)))
    (granted,) = [claim for claim in claims if isinstance(claim, Granted)]
    done = await saver.put_claimed("t", "k", {"done": True}, token=granted.token)
    assert await saver.find("t", "k") == done
    assert await saver.claim("t", "k", owner="late", ttl=10) == Done(done)
    with pytest.raises(StaleClaimError):
        await saver.put_claimed("t", "k", {}, token=granted.token)
    await saver.release("t", "k", token=granted.token)
    await saver.delete("t")
    assert await saver.get("t") is await saver.find("t", "k") is None
    await store.close()
    async with AsyncRedisSaver(server.url, fleet_name) as own:
        assert (await own.put("t", {"n": 1})).state == {"n": 1}
