"""Many processes on one gate: what comes out is never more than was allowed.

python -m tests.chaos.gates --processes 8 --seconds 60

1. hammer one bucket and one set of slots: tokens let out <= capacity + rate x time, slots held <= slots
2. the same over a killed and restarted Redis, each process on its own twin meanwhile
3. the failure that opens the breaker, seen by one process, stops the others: how soon, beside bare pub/sub
4. half-open: so many probes fleet-wide, and a killed prober's permit is free again
"""

import argparse
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import redis

from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import (
    BreakerChanged,
    BreakerSpec,
    BucketSpec,
    Event,
    Gate,
    GateRefused,
    GateSpec,
    RedisTokenBucket,
    SlotSpec,
)
from techrevati.store.sync import SyncStore

FLEET, CAPACITY, SLOTS = "hammer", 100.0, 5
RATE = 300.0
HELD = "held"
SPAWN = multiprocessing.get_context("spawn")


# 1 and 2: hammering.


@dataclass(slots=True)
class Load:
    """What one process got through in its time: tokens by who let them out, and the most slots seen held."""

    fleet: float = 0.0
    local: float = 0.0
    refused: int = 0
    most_held: int = 0
    first_us: int = 0
    last_us: int = 0


def bucket_spec(rate: float) -> GateSpec:
    bucket = BucketSpec("tokens", CAPACITY, rate)
    return GateSpec(name="bucket", buckets=(bucket,), horizon=None, store_patience=0.05)


SLOT_SPEC = GateSpec(name="slots", slots=SlotSpec(most=SLOTS), store_patience=0.05)


def hammer(url: str, seed: int, seconds: float, rate: float, restart: bool, pipe: Connection) -> None:
    """Take tokens and slots as fast as this process can."""
    chance = random.Random(seed)
    load = Load()
    with SyncStore(url, patience=0.05) as store, redis.Redis.from_url(url) as plain:
        tokens, slots = Gate(store, FLEET, bucket_spec(rate)), Gate(store, FLEET, SLOT_SPEC)
        one = RedisTokenBucket("tokens", CAPACITY, rate, store=store, gate=tokens)
        slots.settle(slots.admit())
        pipe.send("ready")
        pipe.recv()
        load.first_us = round(time.time() * 1e6)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            cost = chance.choice((1, 1, 2, 3.5, 20))
            if not restart and chance.random() < 0.5:  # who lets it out is told by `admit` only
                if one.try_acquire(cost):
                    load.fleet += cost
                else:
                    load.refused += 1
                continue
            try:
                wait = chance.choice((0.0, 0.0, 0.002))
                admission = tokens.admit({"tokens": cost}, wait=wait)
                if admission.by == "fleet":
                    load.fleet += cost
                else:
                    load.local += cost
            except GateRefused:
                load.refused += 1
            try:
                held = slots.admit(timeout=seconds)
            except GateRefused:
                continue
            if held.by != "fleet":
                slots.settle(held)
                continue
            try:
                load.most_held = max(load.most_held, int(plain.incr(HELD)))
                plain.decr(HELD)
            except redis.RedisError:
                pass
            slots.settle(held)
        load.last_us = round(time.time() * 1e6)
        tokens.close()
        slots.close()
    pipe.send(load)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all together got, and what they were allowed."""

    fleet: float
    local: float
    allowed: float
    allowed_local: float
    most_held: int
    refused: int
    seconds: float

    @property
    def holds(self) -> bool:
        return self.fleet <= self.allowed and self.local <= self.allowed_local and self.most_held <= SLOTS

    def __str__(self) -> str:
        return (
            f"let out by the fleet {self.fleet:,.1f} of {self.allowed:,.1f} allowed in {self.seconds:.1f} s, "
            f"by local twins {self.local:,.1f} of {self.allowed_local:,.1f}, refused {self.refused:,}; "
            f"slots held at most {self.most_held} of {SLOTS}"
        )


def run_hammer(server: EmbeddedRedis, processes: int, seconds: float, *, restart: bool, rate: float = RATE) -> Verdict:
    """Let so many processes hammer one gate; `restart` kills Redis halfway."""
    pipes, children = [], []
    for n in range(processes):
        ours, theirs = SPAWN.Pipe()
        child = SPAWN.Process(target=hammer, args=(server.url, n, seconds, rate, restart, theirs), daemon=True)
        child.start()
        pipes.append(ours)
        children.append(child)
    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send("go")
    down = 0.0
    if restart:
        time.sleep(seconds / 2)
        begun = time.monotonic()
        server.restart(sig=signal.SIGKILL)
        down = time.monotonic() - begun
    loads: list[Load] = [pipe.recv() for pipe in pipes]
    for child in children:
        child.join(10)
    took = (max(load.last_us for load in loads) - min(load.first_us for load in loads)) / 1e6
    allowed = CAPACITY + rate * (took + 0.002)  # a start promised 2 ms ahead counts too
    if restart:
        allowed += rate * 2.0  # what `everysec` may have lost (PROTOCOL 14)
    # Alone, each may let out a full bucket, and its rate for as long as it stays away.
    alone = processes * (CAPACITY + rate * (down + 3.0)) if restart else 0.0
    return Verdict(
        sum(load.fleet for load in loads),
        sum(load.local for load in loads),
        allowed,
        alone,
        max(load.most_held for load in loads),
        sum(load.refused for load in loads),
        took,
    )


# 3 and 4: agreeing.

BREAKER = BreakerSpec(failure_threshold=5, cooldown=0.4, cooldown_factor=1.0, probes=3, probes_to_close=3)


def replica(url: str, n: int, pipe: Connection) -> None:
    """One process of a fleet: does what it is told, says what it saw and when (machine's monotonic s)."""
    opened: dict[int, float] = {}
    heard: dict[str, float] = {}

    def listen(event: Event) -> None:
        if isinstance(event, BreakerChanged) and event.after is CircuitState.OPEN:
            opened.setdefault(event.generation, time.monotonic())

    def hear() -> None:
        with redis.Redis.from_url(url, decode_responses=True) as plain, plain.pubsub() as channel:
            channel.subscribe("bare")
            for message in channel.listen():
                if message["type"] == "message":
                    heard[message["data"]] = time.monotonic()

    threading.Thread(target=hear, daemon=True).start()
    with SyncStore(url) as store, redis.Redis.from_url(url) as plain:
        spec = GateSpec(name="breaker", breaker=BREAKER, margin=0.0)
        gate = Gate(store, FLEET, spec, worker=f"w{n}", on_event=listen)
        gate.settle(gate.admit())
        answers: dict[str, Callable[..., Any]] = {
            "fail": lambda: gate.settle(gate.admit(), outcome="fail"),
            "last": lambda: _stamped(lambda: gate.settle(gate.admit(), outcome="fail")),
            "say": lambda text: _stamped(lambda: plain.publish("bare", text)),
            "opened": lambda: max(opened.values(), default=0.0),
            "heard": lambda text: heard.get(text, 0.0),
            "forget": opened.clear,
            "watch": lambda: gate.state().value,
            "close": gate.force_close,
            "try": lambda timeout: _try(gate, timeout),
        }
        pipe.send("ready")
        while True:
            what, *told = pipe.recv()
            pipe.send(answers[what](*told))


def _stamped(do: Callable[[], Any]) -> float:
    at = time.monotonic()
    do()
    return at


def _try(gate: Gate, timeout: float) -> bool:
    try:
        return gate.admit(timeout=timeout).probe
    except GateRefused:
        return False


class Replicas:
    """Processes that do as they are told."""

    def __init__(self, url: str, count: int) -> None:
        self.pipes: list[Any] = []
        self.children: list[Any] = []
        for n in range(count):
            ours, theirs = SPAWN.Pipe()
            child = SPAWN.Process(target=replica, args=(url, n, theirs), daemon=True)
            child.start()
            self.pipes.append(ours)
            self.children.append(child)
        for pipe in self.pipes:
            pipe.recv()

    def ask(self, n: int, *what: Any) -> Any:
        self.pipes[n].send(what)
        return self.pipes[n].recv()

    def ask_all(self, *what: Any, but: int = -1) -> list[Any]:
        chosen = [pipe for n, pipe in enumerate(self.pipes) if n != but]
        for pipe in chosen:
            pipe.send(what)
        return [pipe.recv() for pipe in chosen]

    def kill(self, n: int) -> None:
        os.kill(self.children[n].pid, signal.SIGKILL)
        self.children[n].join(10)

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.join(10)


def wait_for(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError("it did not come to pass")
        time.sleep(0.005)


def agreement(replicas: Replicas, rounds: int) -> tuple[list[float], list[float]]:
    """Give seconds from the opening failure, seen by one process, to each other's local view; and bare pub/sub's."""
    gates, bare = [], []
    count = len(replicas.pipes)
    for number in range(rounds):
        who = number % count
        replicas.ask(who, "close")
        replicas.ask_all("forget")
        wait_for(lambda: set(replicas.ask_all("watch")) == {"closed"})
        text = f"round {number}"
        said = replicas.ask(who, "say", text)
        wait_for(lambda: all(replicas.ask_all("heard", text)))  # noqa: B023 - asked before the next round
        bare += [at - said for at in replicas.ask_all("heard", text, but=who)]
        for n in range(BREAKER.failure_threshold - 1):
            replicas.ask((who + 1 + n) % count, "fail")
        failed = replicas.ask(who, "last")
        wait_for(lambda: all(replicas.ask_all("opened", but=who)))  # noqa: B023
        gates += [at - failed for at in replicas.ask_all("opened", but=who)]
    return gates, bare


def open_all(replicas: Replicas) -> None:
    for n in range(BREAKER.failure_threshold):
        replicas.ask(n % 2, "fail")
    wait_for(lambda: "closed" not in replicas.ask_all("watch"))
    wait_for(lambda: "open" not in replicas.ask_all("watch"))


VICTIM, ITS_CALL = 1, 1.0


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """Probes that all processes got: at first, once one prober was killed in mid call, once its time was over."""

    first: int
    while_held: int
    after: int
    freed_after: float
    """Seconds from the dead prober's admission until its permit was given again."""

    @property
    def is_exact(self) -> bool:
        return (self.first, self.while_held, self.after) == (BREAKER.probes, 0, 1) and self.freed_after >= ITS_CALL

    def __str__(self) -> str:
        return (
            f"{self.first} probes of {BREAKER.probes}, {self.while_held} more after the kill -9 of one prober, "
            f"{self.after} more {self.freed_after:.2f} s after it was let out (its call had {ITS_CALL:g} s)"
        )


def half_open(replicas: Replicas) -> HalfOpen:
    """Have each probe taken by another process, kill one of them in mid call, and see whose permit is free again."""
    replicas.ask(0, "close")
    wait_for(lambda: set(replicas.ask_all("watch")) == {"closed"})
    open_all(replicas)
    began = time.monotonic()
    order = [VICTIM, *(n for n in range(len(replicas.pipes)) if n != VICTIM)]
    first = sum(replicas.ask(n, "try", ITS_CALL if n == VICTIM else 600.0) for n in order)
    replicas.kill(VICTIM)
    del replicas.pipes[VICTIM], replicas.children[VICTIM]
    while_held = sum(replicas.ask_all("try", 600.0))
    early = time.monotonic() < began + ITS_CALL
    after = 0
    while not after and time.monotonic() < began + 10 * ITS_CALL:
        after += sum(replicas.ask_all("try", 600.0))
        time.sleep(0.01)
    freed = time.monotonic() - began
    for _ in range(20):  # and no other one's
        after += sum(replicas.ask_all("try", 600.0))
    assert early, "this machine is too slow to look while the permit is held"
    return HalfOpen(first, while_held, after, freed)


def percentile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def main() -> int:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--processes", type=int, default=8)
    told.add_argument("--seconds", type=float, default=60.0)
    told.add_argument("--rounds", type=int, default=100)
    how = told.parse_args()
    fine = True
    for restart in (False, True):
        with EmbeddedRedis() as server:
            verdict = run_hammer(server, how.processes, how.seconds, restart=restart)
        print(f"{'PASS' if verdict.holds else 'FAIL'}  {'over a restart: ' if restart else ''}{verdict}", flush=True)
        fine = fine and verdict.holds
    with EmbeddedRedis() as server:
        replicas = Replicas(server.url, how.processes)
        try:
            gates, bare = agreement(replicas, how.rounds)
            ours, theirs = percentile(gates, 0.99), percentile(bare, 0.99)
            ok = ours <= 0.05
            print(
                f"{'PASS' if ok else 'FAIL'}  all others stop after p50 {percentile(gates, 0.5) * 1e3:.1f} ms, "
                f"p99 {ours * 1e3:.1f} ms, at most {max(gates) * 1e3:.1f} ms ({len(gates)} looks); "
                f"bare pub/sub p50 {percentile(bare, 0.5) * 1e3:.1f} ms, p99 {theirs * 1e3:.1f} ms",
                flush=True,
            )
            probed = half_open(replicas)
            print(f"{'PASS' if probed.is_exact else 'FAIL'}  {probed}")
            fine = fine and ok and probed.is_exact
        finally:
            replicas.close()
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
