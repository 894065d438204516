"""What a gate costs: beside a bare EVALSHA pair of the same size, and beside what people would use instead.

    python -m tests.benchmarks.gates --rounds 200 --calls 20

    one server, one connection each ── round 1: everyone so many calls ── round 2: … ── medians, ratios per round

A bare pair is two calls of a script that reads and writes as many fields as a gate, and decides nothing: same
arguments, same length of answer, built and parsed by the same code.  A gate of three buckets, slots and a breaker does
all its work in the same two round trips.  The others keep one limit, or one breaker, and nothing is settled.
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import limits
import purgatory
import pybreaker
import pyrate_limiter
import redis
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from purgatory.domain.model import OpenedState

from techrevati.runtime.circuit_breaker import CircuitBreaker, CircuitOpenError
from techrevati.store.calls import Call
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import (
    BreakerSpec,
    BucketSpec,
    Gate,
    GateRefused,
    GateSpec,
    RedisCircuitBreaker,
    RedisTokenBucket,
    SlotSpec,
)
from techrevati.store.gates.records import Ask
from techrevati.store.sync import SyncStore
from tests.benchmarks.report import Bar, finish, machine, pairwise, show_machine, table, write_json

PLENTY = 1e9
COSTS = {"rpm": 1, "input_tpm": 900, "output_tpm": 300}
SPEC = GateSpec(
    name="openai:m",
    breaker=BreakerSpec(),
    buckets=tuple(BucketSpec(name, PLENTY, PLENTY) for name in COSTS),
    slots=SlotSpec(most=64),
)
ADMITTED = "return {1,'',0,'',0,1700000000000000,0,1700000000000,0,0}"
SETTLED = "return {1,'',1700000000000000,0,1700000000000,0,0,0}"
# Of the size that a gate of three buckets has: 18 fields read, 7 written, in one command each.
TOUCH = """
local h = redis.call('HMGET', KEYS[1], 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p',
  'q', 'r')
redis.call('HSET', KEYS[1], 'a', '1700000000000000', 'b', '-12345678.123456789', 'c', '-12345678.123456789', 'd',
  '-12345678.123456789', 'e', '12', 'f', ARGV[5], 'g', '12345678.123456789')
"""
ALONE, STORM = 3, 50
"""How many refuse without a word to Redis, and how much oftener those are called."""


@dataclass(slots=True)
class Contestant:
    """One way of doing it; `many` does it so often."""

    name: str
    does: str
    many: Callable[[int], None]
    seconds: list[float] = field(default_factory=list)
    """Per call, of each round."""
    trips: float = 0.0
    """Times that Redis read something, for one call."""


def pair(store: SyncStore, gate: Gate, does: str = "") -> Callable[[], None]:
    """Two round trips of the arguments and answers of a gate, and nothing decided."""
    terms = gate.core.terms
    assert terms is not None
    client, ids = store.redis, itertools.count()
    shas = [client.execute_command("SCRIPT", "LOAD", source) for source in (does + ADMITTED, does + SETTLED)]

    key = f"bare:{gate.core.keys.tag}"
    client.hset(key, "text", gate.core.spec.text)  # so that it is stored as a gate's hash is

    def say(sha: str, call: Call[Any]) -> Any:
        return call.parse(store.command("EVALSHA", sha, 1, key, 1, "", *call.args))

    def once() -> None:
        name = f"bare.{next(ids)}"
        ask = Ask(call_id=name, holder="worker", lease_us=65_000_000)
        say(shas[0], terms.admit(ask, COSTS))
        back = {"input_tpm": 100.0, "output_tpm": -20.0}
        say(shas[1], terms.settle(name, "worker", generation=1, outcome="ok", latency_us=5000, back=back))

    return once


def scripts(store: SyncStore, gate: Gate) -> Callable[[], None]:
    """The same two round trips, by the gate's scripts."""
    terms = gate.core.terms
    assert terms is not None
    ids = itertools.count()

    def once() -> None:
        name = f"call.{next(ids)}"
        verdict = store.run(terms.admit(Ask(call_id=name, holder="worker", lease_us=65_000_000), COSTS))
        assert verdict.admitted
        back = {"input_tpm": 100.0, "output_tpm": -20.0}
        generation = verdict.seen.generation
        store.run(terms.settle(name, "worker", generation=generation, outcome="ok", latency_us=5000, back=back))

    return once


def gated(gate: Gate) -> Callable[[], None]:
    def once() -> None:
        admission = gate.admit(COSTS)
        gate.settle(admission, costs={"input_tpm": 800, "output_tpm": 320})

    return once


def refused(call: Callable[[], object], *errors: type[Exception]) -> Callable[[], None]:
    """A call that must not get through."""

    def once() -> None:
        try:
            call()
        except errors:
            return
        raise AssertionError("it got through")

    return once


def each(once: Callable[[], object]) -> Callable[[int], None]:
    def many(times: int) -> None:
        for _ in range(times):
            once()

    return many


def nothing() -> None:
    """What is behind a breaker, and the unit of cost."""


def fails() -> None:
    raise ConnectionError


def contestants(url: str, stack: ExitStack) -> tuple[list[Contestant], list[Contestant], list[Contestant]]:
    """Give those that limit, those that break and are closed, and those that are open."""
    store = stack.enter_context(SyncStore(url))
    plain = stack.enter_context(redis.Redis.from_url(url))
    gate = Gate(store, "bench", SPEC)
    stack.callback(gate.close)
    gated(gate)()
    bucket = RedisTokenBucket("one", PLENTY, PLENTY, store=store)
    bucket.try_acquire(1)

    pool = redis.ConnectionPool.from_url(url)
    storage = limits.storage.RedisStorage("redis://unused", connection_pool=pool)
    stack.callback(pool.disconnect)
    item = limits.RateLimitItemPerMinute(10**6)
    moving, fixed = MovingWindowRateLimiter(storage), FixedWindowRateLimiter(storage)
    sliding = SlidingWindowCounterRateLimiter(storage)
    rates = [pyrate_limiter.Rate(10**6, pyrate_limiter.Duration.MINUTE)]
    pyrate = pyrate_limiter.Limiter(pyrate_limiter.RedisBucket.init(rates, plain, "pyrate"))

    closed = RedisCircuitBreaker("closed", store=store)
    stack.callback(closed.close)
    closed.call(nothing)
    theirs = pybreaker.CircuitBreaker(
        state_storage=pybreaker.CircuitRedisStorage("closed", plain, namespace="closed"), name="closed"
    )
    # Its sync face does not run with this redis-py: it awaits nothing of what it is given.
    runner = stack.enter_context(asyncio.Runner())
    uow = purgatory.AsyncRedisUnitOfWork(url)
    factory = purgatory.AsyncCircuitBreakerFactory(default_ttl=3600, uow=uow)
    runner.run(factory.initialize())
    stack.callback(
        lambda: runner.run(uow.contexts.redis.aclose())  # type: ignore[attr-defined] # its own close is missing
    )

    def through_purgatory(name: str, call: Callable[[], None], *errors: type[Exception]) -> Callable[[int], None]:
        async def many(times: int) -> None:
            for _ in range(times):
                try:
                    async with await factory.get_breaker(name):
                        call()
                except errors:
                    continue
                assert not errors, "it got through"

        return lambda times: runner.run(many(times))

    # What it knows is good for longer than anything here keeps its listener from running.
    opened = RedisCircuitBreaker("opened", 1, 3600.0, store=store, staleness=5.0)
    stack.callback(opened.close)
    refused(lambda: opened.call(fails), ConnectionError)()
    local = CircuitBreaker("local", 1, 3600.0)
    refused(lambda: local.call(fails), ConnectionError)()
    theirs_open = pybreaker.CircuitBreaker(
        fail_max=1,
        reset_timeout=3600,
        state_storage=pybreaker.CircuitRedisStorage("closed", plain, namespace="open"),
        name="open",
    )
    refused(lambda: theirs_open.call(fails), ConnectionError, pybreaker.CircuitBreakerError)()
    through_purgatory("open", fails, Exception)(6)

    limiting = [
        Contestant("bare EVALSHA pair", "one HMGET, one HSET of the size", each(pair(store, gate, TOUCH))),
        Contestant("EVALSHA pair of constants", "nothing: reads and writes none", each(pair(store, gate))),
        Contestant("gate_admit + gate_settle", "3 buckets, slots, breaker, refund", each(scripts(store, gate))),
        Contestant("the same, by Gate", "and the local view", each(gated(gate))),
        Contestant("RedisTokenBucket", "1 bucket", each(lambda: bucket.try_acquire(1))),
        Contestant("limits, moving window", "1 limit", each(lambda: moving.hit(item, "a"))),
        Contestant("limits, fixed window", "1 limit", each(lambda: fixed.hit(item, "b"))),
        Contestant("limits, sliding window counter", "1 limit", each(lambda: sliding.hit(item, "d"))),
        Contestant("pyrate-limiter", "1 limit", each(lambda: pyrate.try_acquire("c", blocking=False))),
    ]
    breaking = [
        Contestant("RedisCircuitBreaker", "a call while closed", each(lambda: closed.call(nothing))),
        Contestant("pybreaker, Redis", "a call while closed", each(lambda: theirs.call(nothing))),
        Contestant("purgatory, Redis, async", "a call while closed", through_purgatory("closed", nothing)),
    ]
    rejecting = [
        Contestant("gate.check()", "refuse while open", each(refused(opened.gate.check, GateRefused))),
        Contestant(
            "RedisCircuitBreaker", "refuse while open", each(refused(lambda: opened.call(nothing), CircuitOpenError))
        ),
        Contestant("CircuitBreaker", "refuse while open", each(refused(lambda: local.call(nothing), CircuitOpenError))),
        Contestant(
            "pybreaker, Redis",
            "refuse while open",
            each(refused(lambda: theirs_open.call(nothing), pybreaker.CircuitBreakerError)),
        ),
        Contestant("purgatory, Redis, async", "refuse while open", through_purgatory("open", nothing, OpenedState)),
    ]
    return limiting, breaking, rejecting


def measure(all_: list[Contestant], rounds: int, calls: int) -> None:
    """Everyone, a little, round after round: what lasts longer than a round meets all alike."""
    for number in range(rounds):
        for who in all_ if number % 2 else reversed(all_):
            begun = time.perf_counter()
            who.many(calls)
            who.seconds.append((time.perf_counter() - begun) / calls)


def count_trips(client: "redis.Redis", all_: list[Contestant], calls: int = 50) -> None:
    """How often something reaches Redis; a pipeline is one round trip, a script's own commands are none."""

    def seen() -> int:
        return int(client.info("stats")["total_reads_processed"])

    for who in all_:
        before = seen()
        who.many(calls)
        who.trips = max(0.0, round((seen() - before - 1) / calls, 1))


def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--rounds", type=int, default=200)
    told.add_argument("--calls", type=int, default=20)
    told.add_argument("--no-aof", action="store_true", help="a server that writes no file")
    told.add_argument("--json", type=Path)
    how = told.parse_args()
    options = {"appendonly": "no"} if how.no_aof else {}
    with EmbeddedRedis(options=options) as server, ExitStack() as stack, redis.Redis.from_url(server.url) as client:
        limiting, breaking, rejecting = contestants(server.url, stack)
        every = [*limiting, *breaking, *rejecting]
        measure([*limiting, *breaking], how.rounds, how.calls)
        # Those that ask nobody, as a storm of callers meets them, in turns with a function that does nothing.
        empty = Contestant("an empty call", "nothing", each(nothing))
        measure([empty, *rejecting[:ALONE]], how.rounds, how.calls * STORM)
        measure(rejecting[ALONE:], how.rounds, how.calls)
        unit = statistics.median(empty.seconds)
        count_trips(client, every)
        version = str(client.info("server")["redis_version"])
    print(show_machine(facts := machine(version)), end="\n\n")
    bare = limiting[0].seconds
    rows = []
    for who in every:
        middle = statistics.median(who.seconds)
        beside = pairwise(bare, who.seconds).median if who in limiting else None
        rows.append(
            (
                who.name,
                who.does,
                f"{middle * 1e6:,.1f}",
                f"{who.trips:g}",
                "" if beside is None else f"{beside:.2f}",
                f"{middle / unit:,.0f}",
            )
        )
    head = ("what", "does", "µs", "round trips", "of a bare pair's rate", "empty calls")
    print(table(head, rows), end="\n\n")
    ratio = pairwise(bare, limiting[2].seconds)
    constant = pairwise(limiting[1].seconds, limiting[2].seconds)
    fresh, call = (statistics.median(who.seconds) / unit for who in rejecting[:2])
    ours, *theirs = [who for who in limiting if who.does.startswith("1 ")]
    ahead = min((pairwise(other.seconds, ours.seconds).median, other.name) for other in theirs)
    print(f"the next best to RedisTokenBucket is {ahead[1]}")
    print(f"admit + settle has {constant.median:.2f} of the rate of a pair that reads and writes nothing\n")
    bars = [
        Bar("admit + settle, of the rate of a bare EVALSHA pair", ratio.median, 0.7),
        Bar("RedisTokenBucket, of the rate of the next best limiter", ahead[0], 1.0),
        Bar("a breaker's check while open, in empty function calls", fresh, 70, at_least=False),
        Bar("round trips of a call through a closed breaker", breaking[0].trips, 1.15, at_least=False),
    ]
    write_json(
        how.json,
        {
            "machine": facts,
            "unit_seconds": unit,
            "refused_call_in_empty_calls": call,
            "ratio": {"median": ratio.median, "low": ratio.low, "high": ratio.high},
            "ratio_to_constants": {"median": constant.median, "low": constant.low, "high": constant.high},
            "samples": {f"{who.name}: {who.does}": who.seconds for who in every},
            "round_trips": {f"{who.name}: {who.does}": who.trips for who in every},
            "bars": [bar.asdict() for bar in bars],
        },
    )
    finish(bars)


if __name__ == "__main__":
    main()
