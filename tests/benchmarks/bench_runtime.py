"""What the in-process layer costs, as multiples of an empty function call of the same run.

    python -m tests.benchmarks.bench_runtime

Every case is checked for its result first.  Cases are measured in turns, several rounds, and the
best round counts: on a shared machine everything else only adds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from techrevati.runtime import (
    AgentSession,
    CircuitBreaker,
    ModelPricing,
    SqliteSaver,
    TokenBucket,
    UsageSnapshot,
    register_pricing,
)
from techrevati.runtime.orchestrator import AsyncOrchestrationSession, OrchestrationSession

ROUNDS = 15
USAGE = UsageSnapshot(input_tokens=100, output_tokens=50)


@dataclass
class Case:
    """One thing measured: seconds per call of `run(n)`, against `bar` times the base."""

    name: str
    run: Callable[[int], float]
    calls: int
    bar: float | None = None
    base: str = "empty call"
    best: float = field(default=float("inf"))


def empty() -> None:
    pass


def per_call(fn: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        fn()
    return (time.perf_counter() - start) / calls


def sync_session(turns_before: int = 0) -> OrchestrationSession:
    scope = AgentSession("writer", "draft", max_iterations=10**9).session()
    session = scope.__enter__()
    for _ in range(turns_before):
        session.run_turn(empty, model="bench-model", usage=USAGE)
    return session


def with_usage(turns_before: int) -> Callable[[int], float]:
    """Turns on from `turns_before`; a fresh session each round, so that the place stays right."""

    def run(calls: int) -> float:
        session = sync_session(turns_before)
        session.budget_usd = 1e9
        session.run_turn(empty, model="bench-model", usage=USAGE)
        return per_call(lambda: session.run_turn(empty, model="bench-model", usage=USAGE), calls)

    return run


def async_case(
    turn: Callable[[AsyncOrchestrationSession], Callable[[], Awaitable[object]]],
) -> Callable[[int], float]:
    def run(calls: int) -> float:
        async def measure() -> float:
            async with AgentSession("writer", "draft", max_iterations=10**9).asession() as session:
                once = turn(session)
                await once()
                start = time.perf_counter()
                for _ in range(calls):
                    await once()
                return (time.perf_counter() - start) / calls

        return asyncio.run(measure())

    return run


async def aempty() -> None:
    pass


def sqlite_cases(folder: Path) -> list[Case]:
    """A saver's put, and the INSERT of the same bytes that no saver could do without."""
    state = {"result": "x" * 960, "usage": USAGE.to_dict()}
    metadata = {"status": "completed", "model": "bench-model"}
    saver = SqliteSaver(folder / "saver.db")
    row = (None, "thread", "2026-01-01T00:00:00.000000+00:00", json.dumps(state), None, json.dumps(metadata))
    same = sqlite3.connect(folder / "same.db", isolation_level=None)
    same.execute("PRAGMA journal_mode=WAL")
    same.execute(
        "CREATE TABLE checkpoints (id TEXT PRIMARY KEY, thread_id TEXT, created_at TEXT,"
        " state_json TEXT, parent_id TEXT, metadata_json TEXT)"
    )
    same.execute("CREATE INDEX by_time ON checkpoints (thread_id, created_at DESC)")
    one = sqlite3.connect(folder / "one.db", isolation_level=None)
    one.execute("PRAGMA journal_mode=WAL")
    one.execute("CREATE TABLE bytes (bytes TEXT)")

    def insert() -> None:
        same.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?)", (uuid.uuid4().hex, *row[1:]))

    def insert_one() -> None:
        one.execute("INSERT INTO bytes VALUES (?)", (row[3],))

    def put() -> None:
        saver.put("thread", state, metadata=metadata)

    put()
    latest = saver.get("thread")
    if latest is None or latest.state != state:
        raise AssertionError("the saver lost what was put")
    bare = "bare INSERT of the row"
    return [
        Case("bare INSERT of the text alone", lambda n: per_call(insert_one, n), 100),
        Case(bare, lambda n: per_call(insert, n), 100),
        Case("SqliteSaver.put, 1 KiB", lambda n: per_call(put, n), 100, 1.5, bare),
    ]


def runtime_cases() -> list[Case]:
    session = sync_session()
    if session.run_turn(lambda: 7) != (7, UsageSnapshot()):
        raise AssertionError("a turn must return its result and its usage")
    breaker = CircuitBreaker("bench")
    bucket = TokenBucket("bench", capacity=1e12, refill_per_second=1e9)
    if breaker.call(lambda: 7) != 7 or not bucket.try_acquire():
        raise AssertionError("breaker and bucket must let calls through")
    acquire = bucket.try_acquire
    return [
        Case("run_turn, no-op", lambda n: per_call(lambda: session.run_turn(empty), n), 5000, 150),
        Case("arun_turn, no-op", async_case(lambda s: lambda: s.arun_turn(aempty)), 5000, 165),
        Case("run_turn, model and usage, turn 10", with_usage(10), 2000, 220),
        Case("run_turn, model and usage, turn 10,000", with_usage(10_000), 2000, 220),
        Case("run_turn, timeout", lambda n: per_call(lambda: session.run_turn(empty, timeout=5), n), 300, 2000),
        Case("arun_turn, timeout", async_case(lambda s: lambda: s.arun_turn(aempty, timeout=5)), 2000, 350),
        Case("CircuitBreaker.call", lambda n: per_call(lambda: breaker.call(empty), n), 10_000, 43),
        Case("TokenBucket.try_acquire", lambda n: per_call(acquire, n), 10_000, 35),
    ]


def main() -> int:
    register_pricing("bench-model", ModelPricing(1.0, 2.0))
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            Case("empty call", lambda n: per_call(empty, n), 50_000),
            *runtime_cases(),
            *sqlite_cases(Path(folder)),
        ]
        gc.disable()
        for _ in range(ROUNDS):
            for case in cases:
                gc.collect()
                case.best = min(case.best, case.run(case.calls))
        gc.enable()
    best = {case.name: case.best for case in cases}
    width = max(len(case.name) for case in cases)
    print(f"{'case':<{width}}  {'µs':>9}  {'multiple':>9}  {'bar':>6}  ok")
    failed = 0
    for case in cases:
        multiple = case.best / best[case.base]
        ok = case.bar is None or multiple <= case.bar
        failed += not ok
        bar = "" if case.bar is None else f"{case.bar:g}x"
        verdict = "" if case.bar is None else ("yes" if ok else "NO")
        print(f"{case.name:<{width}}  {case.best * 1e6:>9.3f}  {multiple:>8.1f}x  {bar:>6}  {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
