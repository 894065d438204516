"""What a gate and a budget add to a turn with one model call: ``python -m tests.benchmarks.model_gates``.

One worker's engine in this process, a Redis of its own, turns one after the other and 50 at a time; the model answers
at once.  Prints the median of a turn and the throughput, per set-up, interleaved so that all meet the same machine.
"""

import asyncio
import statistics
import time
from collections.abc import Callable

from techrevati.fleet import Fleet, ModelReply, ModelRequest, Outcome, Turn
from techrevati.store.embedded import EmbeddedRedis
from tests.integration.fleet.desk import Desk, desk

TURNS, TOGETHER, ROUNDS = 200, 50, 5


class Instant:
    async def complete(self, request: ModelRequest) -> ModelReply:
        return ModelReply("so", 5, 10)


def plain(fleet: Fleet) -> None:
    """Neither."""


def gate(fleet: Fleet) -> None:
    fleet.gate("m", rpm=10_000_000, input_tpm=10**9, concurrency=1000, failure_threshold=5)


def budget(fleet: Fleet) -> None:
    fleet.budget(run=100, tenant={"day": 1_000_000})


def both(fleet: Fleet) -> None:
    gate(fleet)
    budget(fleet)


SETUPS: tuple[Callable[[Fleet], None], ...] = (plain, gate, budget, both)


def newsroom(declare: Callable[[Fleet], None]) -> Fleet:
    fleet = Fleet(f"bench-{declare.__name__}")
    fleet.model("m", Instant())
    declare(fleet)

    @fleet.agent("writer")
    async def write(turn: Turn) -> Outcome:
        await turn.model("m", "hello", max_tokens=50)
        return turn.complete()

    return fleet


async def one_by_one(at: Desk) -> list[float]:
    took = []
    for run in await start(at, TURNS):
        begun = time.perf_counter()
        await at.runtime.serve("writer", run, lambda: False)
        took.append(time.perf_counter() - begun)
    return took


async def together(at: Desk) -> float:
    partitions = await start(at, TURNS)
    begun = time.perf_counter()
    for first in range(0, TURNS, TOGETHER):
        batch = partitions[first : first + TOGETHER]
        await asyncio.gather(*(at.runtime.serve("writer", one, lambda: False) for one in batch))
    return TURNS / (time.perf_counter() - begun)


async def start(at: Desk, count: int) -> list[int]:
    """Start runs; gives their partitions."""
    starts = [{"agent": "writer", "input": None} for _ in range(count)]
    runs = await asyncio.to_thread(at.client.start_many, starts)  # type: ignore[arg-type]
    return [at.client.keys(run.id).partition for run in runs]


async def measure(url: str) -> None:
    alone: dict[str, list[float]] = {declare.__name__: [] for declare in SETUPS}
    many: dict[str, list[float]] = {declare.__name__: [] for declare in SETUPS}
    for _ in range(ROUNDS):
        for declare in SETUPS:
            async with desk(newsroom(declare), url) as at:
                await at.served(await at.start())
                alone[declare.__name__] += await one_by_one(at)
                many[declare.__name__].append(await together(at))
    for name, took in alone.items():
        print(
            f"{name:8} {statistics.median(took) * 1e3:6.2f} ms a turn   {max(many[name]):6.0f} turns/s of 50 at a time"
        )


def main() -> None:
    with EmbeddedRedis() as server:
        asyncio.run(measure(server.url))


if __name__ == "__main__":
    main()
