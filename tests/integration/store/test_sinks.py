"""Sinks on Redis: what is taken is written once, off the hot path, and what can be lost is bounded and counted."""

import asyncio
import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from techrevati.runtime import AgentEvent, AgentSession, EventSink, UsageSink, UsageSnapshot
from techrevati.runtime.errors import TechrevatiError
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.errors import BadName
from techrevati.store.sinks import RedisEventSink, RedisUsageSink
from techrevati.store.sync import SyncStore

USAGE = UsageSnapshot(input_tokens=100, output_tokens=20)


@pytest.fixture
def store(server: EmbeddedRedis) -> Iterator[SyncStore]:
    with SyncStore(server.url) as one:
        yield one


def until(done: Callable[[], bool], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def event(n: int) -> AgentEvent:
    return AgentEvent.started(f"writer{n % 2}", "draft").with_data({"n": n, "list": []})


def test_they_stand_where_the_sinks_of_one_process_stand(store: SyncStore, fleet_name: str) -> None:
    with RedisEventSink(store, fleet_name) as events, RedisUsageSink(store, fleet_name) as usage:
        assert isinstance(events, EventSink)
        assert isinstance(usage, UsageSink)
        factory = AgentSession("writer", "draft", event_sink=events, usage_sink=usage)
        with factory.session() as session:
            session.run_turn(lambda: "x", model="m", usage=USAGE)

        async def loop() -> None:
            async with factory.asession() as asession:
                await asession.arun_turn(lambda: asyncio.sleep(0, "y"), model="m", usage=USAGE)

        asyncio.run(loop())
        assert events.flush() and usage.flush()
        assert usage.totals() == {"turns": 2, "total_cost_usd": 0.0, "input_tokens": 200, "output_tokens": 40}
        assert [one.event.value for one in events.replay()].count("agent.completed") == 2


def test_events_are_numbered_in_order_and_read_from_any_place(store: SyncStore, fleet_name: str) -> None:
    sent = [event(n) for n in range(300)]
    with RedisEventSink(store, fleet_name) as sink:
        for one in sent:
            sink.emit(one)
    with RedisEventSink(store, fleet_name) as reader:
        assert list(reader.replay()) == sent
        assert list(reader.replay(limit=7)) == sent[:7]
        assert list(reader.replay(limit=0)) == []
        assert [number for number, _ in reader.events(after=290)] == list(range(291, 301))
        assert reader.events(after=298) == [(299, sent[298]), (300, sent[299])]
        assert reader.events(after=300) == reader.events(limit=0) == []
    with (
        RedisEventSink(store, fleet_name, name="other") as other,
        RedisEventSink(store, fleet_name, tenant="zeta") as z,
    ):
        assert list(other.replay()) == list(z.replay()) == []


def test_totals_are_exact_in_all_and_by_model(store: SyncStore, fleet_name: str) -> None:
    with RedisUsageSink(store, fleet_name) as sink:
        for _ in range(1000):
            sink.record("gpt:5", USAGE, 0.1)
            sink.record("tiny", USAGE, 0.0000005)
        sink.flush()
        assert sink.totals()["turns"] == 2000
        assert sink.totals()["total_cost_usd"] == 100.0005
        assert sink.totals("gpt:5") == {
            "turns": 1000,
            "total_cost_usd": 100.0,
            "input_tokens": 100_000,
            "output_tokens": 20_000,
        }
        assert sink.totals("nobody")["turns"] == 0
        first = sink.records(limit=1)[0]
        assert (first.number, first.model, first.usage, first.cost_usd) == (1, "gpt:5", USAGE, 0.1)


def test_what_is_delivered_again_counts_once(store: SyncStore, fleet_name: str) -> None:
    with RedisUsageSink(store, fleet_name) as one, RedisUsageSink(store, fleet_name) as another:
        for _ in range(3):
            one.record_once("run1:3", "m", USAGE, 0.5)
            one.flush()
            another.record_once("run1:3", "m", USAGE, 0.5)
            another.flush()
        assert one.totals()["total_cost_usd"] == 0.5
    with RedisEventSink(store, fleet_name) as events:
        for n in range(3):
            events.emit_once("e1", event(n))
        events.flush()
        assert [number for number, _ in events.events()] == [1]


def test_a_batch_whose_reply_was_lost_is_written_once(store: SyncStore, fleet_name: str) -> None:
    lost: list[Any] = []

    class Lossy(SyncStore):
        def run(self, call: Any, **more: Any) -> Any:
            done = super().run(call, **more)
            if len(lost) < 3:
                lost.append(call)
                raise TechrevatiError("the reply was lost")
            return done

    with Lossy(store.url) as lossy, RedisUsageSink(lossy, fleet_name, every=0.01) as sink:
        for _ in range(50):
            sink.record("m", USAGE, 0.25)
        assert sink.flush()
        assert sink.totals()["total_cost_usd"] == 12.5
    assert len(lost) == 3


def test_the_stream_is_bounded_and_a_reader_is_told_what_it_missed(store: SyncStore, fleet_name: str) -> None:
    with RedisEventSink(store, fleet_name, most=100) as sink:
        for n in range(1000):
            sink.emit(event(n))
        sink.flush()
        page = sink.page(after=10, limit=5)
        assert page.entries[0].number == 901
        assert (page.lost, page.after) == (890, 905)
        assert sink.page(after=page.after, limit=1000).lost == 0


def test_without_redis_nothing_waits_and_what_finds_no_room_is_counted(
    private_redis: EmbeddedRedis, fleet_name: str
) -> None:
    troubles: list[TechrevatiError] = []
    store = SyncStore(private_redis.url, patience=0.05)
    sink = RedisEventSink(store, fleet_name, room=200, every=0.01, on_trouble=troubles.append)
    sink.emit(event(0))
    assert sink.flush()
    private_redis.stop()
    for n in range(1, 501):
        sink.emit(event(n))
    assert sink.waiting == 200
    assert sink.dropped == 300
    assert not sink.flush(timeout=0.1)
    until(lambda: len(troubles) > 0)
    private_redis.start()
    assert sink.flush()
    kept = [one.data["n"] for one in sink.replay() if one.data]
    assert kept[0] == 0
    assert kept[-200:] == list(range(301, 501))
    sink.close()
    store.close()


def test_emitting_does_not_wait_for_a_round_trip(store: SyncStore, fleet_name: str) -> None:
    answers = threading.Event()

    class Slow(SyncStore):
        def run(self, call: Any, **more: Any) -> Any:
            assert answers.wait(30)
            return super().run(call, **more)

    with Slow(store.url) as slow, RedisEventSink(slow, fleet_name, room=50_000) as sink:
        for n in range(2000):
            sink.emit(event(n))
        assert sink.waiting == 2000
        answers.set()
        assert sink.flush(30)
        assert len(list(sink.replay())) == 2000


def test_threads_and_forks_write_into_one_sink(store: SyncStore, fleet_name: str) -> None:
    sink = RedisUsageSink(store, fleet_name)
    sink.record("m", USAGE, 1.0)

    def work() -> None:
        for _ in range(100):
            sink.record("m", USAGE, 1.0)

    def child() -> None:
        work()
        assert sink.flush()

    threads = [threading.Thread(target=work) for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what prefork pools do
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process.join(30)
    assert process.exitcode == 0
    assert sink.flush()
    assert sink.totals()["turns"] == 501
    sink.close()


def test_a_closed_sink_has_written_all_and_takes_no_more(store: SyncStore, fleet_name: str) -> None:
    sink = RedisEventSink(store, fleet_name, every=30)
    for n in range(5):
        sink.emit(event(n))
    sink.close()
    sink.close()
    assert len(list(sink.replay())) == 5
    with pytest.raises(ValueError, match="closed"):
        sink.emit(event(6))


def test_every_key_has_a_ttl(store: SyncStore, fleet_name: str) -> None:
    with RedisUsageSink(store, fleet_name, ttl=100) as sink:
        sink.record_once("k", "m", USAGE, 1.0)
    names = list(store.redis.scan_iter(match=f"sink:{{{fleet_name}:*"))
    assert len(names) == 6
    assert all(90 < store.redis.ttl(name) <= 100 for name in names)


def test_bad_input_is_refused(store: SyncStore, fleet_name: str) -> None:
    for options in ({"most": 0}, {"room": 0}, {"every": 0}, {"window": -1}, {"ttl": 0}):
        with pytest.raises(ValueError, match="more than zero"):
            RedisEventSink(store, fleet_name, **options)  # type: ignore[arg-type]
    for names in ({"name": "a{b"}, {"tenant": "a b"}, {"tenant": "x" * 201}, {"name": "a\nb"}):
        with pytest.raises(BadName):
            RedisUsageSink(store, fleet_name, **names)  # type: ignore[arg-type]
    with RedisUsageSink(store, fleet_name) as sink:
        for cost in (float("nan"), float("inf"), 1e6):
            with pytest.raises(ValueError, match="cost"):
                sink.record("m", USAGE, cost)
