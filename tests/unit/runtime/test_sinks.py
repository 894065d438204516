"""Sinks that discard, remember, keep, and fan out."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from techrevati.runtime import (
    DEFAULT_RING_CAPACITY,
    AgentEvent,
    EventSink,
    NoopEventSink,
    NoopUsageSink,
    RingBufferEventSink,
    RingBufferUsageSink,
    SqliteEventSink,
    SqliteUsageSink,
    UsageSink,
    UsageSnapshot,
    persistence,
)
from techrevati.runtime.fanout import FanOutEventSink, FanOutUsageSink

USAGE = UsageSnapshot(1, 2)


def numbered(n: int) -> AgentEvent:
    return AgentEvent.completed("r", "p", str(n))


def test_all_sinks_fulfil_their_protocol() -> None:
    assert all(isinstance(s, EventSink) for s in (NoopEventSink(), RingBufferEventSink(), FanOutEventSink()))
    assert all(isinstance(s, UsageSink) for s in (NoopUsageSink(), RingBufferUsageSink(), FanOutUsageSink()))
    NoopEventSink().emit(numbered(1))
    NoopUsageSink().record("m", USAGE, 0.0)
    assert NoopEventSink() == NoopEventSink()


def test_rings_keep_the_newest() -> None:
    events, usages = RingBufferEventSink(2), RingBufferUsageSink(2)
    emitted = [numbered(n) for n in range(3)]
    for n, event in enumerate(emitted):
        events.emit(event)
        usages.record(f"m{n}", USAGE, n)
    assert events.events[0] is emitted[1]
    assert events.events == emitted[1:]
    assert usages.records == [("m1", USAGE, 1), ("m2", USAGE, 2)]
    events.events.clear()
    assert len(events.events) == 2
    events.clear()
    usages.clear()
    assert (events.events, usages.records) == ([], [])


def test_ring_capacities() -> None:
    assert RingBufferEventSink().capacity == DEFAULT_RING_CAPACITY == 1000
    none = RingBufferEventSink(0)
    none.emit(numbered(1))
    assert none.events == []
    for kind in (RingBufferEventSink, RingBufferUsageSink):
        with pytest.raises(ValueError, match="ring capacity must be >= 0, got -1"):
            kind(-1)


def test_events_replay_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistence, "_PAGE", 3)
    path = tmp_path / "events.db"
    emitted = [numbered(n).with_data({"é": n}) for n in range(8)]
    with SqliteEventSink(path) as sink:
        for event in emitted:
            sink.emit(event)
    with SqliteEventSink(str(path)) as again:
        assert list(again.replay()) == emitted
        assert list(again.replay(limit=5)) == emitted[:5]
        assert list(again.replay(limit=6)) == emitted[:6]
        assert list(again.replay(limit=100)) == emitted
        assert list(again.replay(limit=0)) == list(again.replay(limit=-1)) == []
    raw = sqlite3.connect(path)
    row = raw.execute("SELECT emitted_at, event, role, phase FROM agent_events WHERE id = 1").fetchone()
    assert row == (emitted[0].emitted_at, "agent.completed", "r", "p")
    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    raw.close()


def test_usage_adds_up_in_a_file(tmp_path: Path) -> None:
    with SqliteUsageSink(tmp_path / "usage.db") as sink:
        assert sink.totals() == {"turns": 0, "total_cost_usd": 0.0}
        sink.record("m", USAGE, 0.25)
        sink.record("m", USAGE, 0.5)
        assert sink.totals() == {"turns": 2, "total_cost_usd": 0.75}
    with SqliteUsageSink(":memory:") as memory:
        memory.record("m", USAGE, 1)
        assert memory.totals()["turns"] == 1


def test_threads_share_the_sqlite_sinks(tmp_path: Path) -> None:
    events, usages = SqliteEventSink(":memory:"), SqliteUsageSink(tmp_path / "u.db")
    barrier = threading.Barrier(6)

    def work(_: int) -> None:
        barrier.wait()
        for n in range(20):
            events.emit(numbered(n))
            usages.record("m", USAGE, 1.0)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(list(events.replay())) == 120
    assert usages.totals() == {"turns": 120, "total_cost_usd": 120.0}
    events.close()
    usages.close()


def test_threads_share_the_rings() -> None:
    events, usages = RingBufferEventSink(50), RingBufferUsageSink(1000)
    barrier = threading.Barrier(6)

    def work(_: int) -> None:
        barrier.wait()
        for n in range(100):
            events.emit(numbered(n))
            usages.record("m", USAGE, 1.0)
            assert len(events.events) <= 50

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert (len(events.events), len(usages.records)) == (50, 600)


class Broken:
    def emit(self, event: AgentEvent) -> None:
        raise RuntimeError("disk full")

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        raise RuntimeError("disk full")


def test_fan_out_tells_everyone_before_it_complains() -> None:
    events, usages = RingBufferEventSink(), RingBufferUsageSink()
    with pytest.raises(ExceptionGroup, match="1 event sinks failed"):
        FanOutEventSink(Broken(), events).emit(numbered(1))
    with pytest.raises(ExceptionGroup, match="2 usage sinks failed"):
        FanOutUsageSink(Broken(), usages, Broken()).record("m", USAGE, 1.0)
    assert len(events.events) == len(usages.records) == 1
    FanOutEventSink(events, events).emit(numbered(2))
    FanOutUsageSink(usages).record("m", USAGE, 1.0)
    assert (len(events.events), len(usages.records)) == (3, 2)
