"""Idle enqueue to the first instruction of the first turn.

    python -m tests.benchmarks.latency --samples 300

    client: t0, enqueue ──▶ … ──▶ worker: t1, first line of the body ──▶ a list of Redis ──▶ t1 − t0

One task at a time, with a random gap before each, so every worker is idle when its task comes.  All systems
are up at the same time, each with its own Redis, and take turns: sample 1 of each, sample 2 of each, and
so on.  Both stamps are the machine's monotonic clock, which its processes share.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import taskiq_redis

from tests.benchmarks import ours, plain_celery
from tests.benchmarks.harness import Arena, WorkerDied, end_on_sigterm
from tests.benchmarks.plain_taskiq import NAME
from tests.benchmarks.report import Bar, finish, machine, percentile, show_machine, table, write_json

STAMPS = "bench:stamps"
WARM = 20  # samples thrown away: connections open, code paths are warm

Enqueue = Callable[[], object]


@contextmanager
def celery(arena: Arena, children: int) -> Iterator[Enqueue]:
    """Plain Celery as advised: prefork, late acks."""
    plain = plain_celery.start(arena, "advised", children=children)
    yield lambda: plain.stamp.delay(STAMPS)
    plain.close()


@contextmanager
def taskiq(arena: Arena) -> Iterator[Enqueue]:
    """One taskiq worker process on a list; the client keeps one loop and one connection pool."""
    target = "tests.benchmarks.plain_taskiq:broker"
    arena.spawn("taskiq", "python", "-m", "taskiq", "worker", target, "--workers", "1", "--log-level", "WARNING")
    with asyncio.Runner() as runner:
        broker = taskiq_redis.ListQueueBroker(arena.url)
        task: Any = broker.register_task(_never_here, task_name=NAME)
        runner.run(broker.startup())
        yield lambda: runner.run(task.kiq(STAMPS))
        runner.run(broker.shutdown())


async def _never_here(key: str) -> None:
    """Stand for the task that the worker has under the same name."""


@contextmanager
def our(arena: Arena) -> Iterator[Enqueue]:
    """One worker process of ours with its coordinator; the sync client, as for Celery."""
    with ours.our_fleet(arena, workers=1, concurrency=100) as fleet:
        yield lambda: fleet.start("stamp", [{"key": STAMPS}])


def sample(arena: Arena, enqueue: Enqueue, *, timeout: float) -> float:
    """Seconds from before the enqueue to the first line of the body."""
    begin = time.monotonic_ns()
    enqueue()
    answer: Any = arena.redis.blpop([STAMPS], timeout=timeout)
    if answer is None:
        raise WorkerDied("the measured worker", arena.started[-1].tail())
    return (int(answer[1]) - begin) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--gap", type=float, default=0.05, help="mean s of the idle gap before a sample")
    parser.add_argument("--children", type=int, default=2, help="pool children of the Celery worker")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    end_on_sigterm()
    gaps = random.Random(options.seed)

    systems: dict[str, Callable[[Arena], Any]] = {
        "celery prefork": lambda arena: celery(arena, options.children),
        "taskiq list": taskiq,
        "ours": our,
    }

    waits: dict[str, list[float]] = {name: [] for name in systems}
    with ExitStack() as stack:
        arenas = {name: stack.enter_context(Arena()) for name in systems}
        facts = machine(next(iter(arenas.values())).server_version())
        enqueues = {name: stack.enter_context(system(arenas[name])) for name, system in systems.items()}
        for index in range(-WARM, options.samples):
            for name, enqueue in enqueues.items():
                time.sleep(gaps.uniform(0, 2 * options.gap))
                wait = sample(arenas[name], enqueue, timeout=30)
                if index >= 0:
                    waits[name].append(wait * 1000)

    print(show_machine(facts))
    print(f"\n{options.samples} samples each, one at a time, interleaved; ms\n")
    head = ["system", "p50", "p90", "p99", "max"]
    quantiles = (0.5, 0.9, 0.99, 1.0)
    rows = [[name, *(f"{percentile(ms, q):.2f}" for q in quantiles)] for name, ms in waits.items()]
    print(table(head, rows), end="\n\n")
    theirs = percentile(waits["celery prefork"], 0.5)
    bars = [Bar("p50 ms, ahead of celery", percentile(waits["ours"], 0.5), theirs, at_least=False)]
    write_json(
        options.json,
        {"benchmark": "latency", "options": vars(options), "machine": facts, "ms": waits}
        | {"bars": [bar.asdict() for bar in bars]},
    )
    finish(bars)


if __name__ == "__main__":
    main()
