"""Turns per second of no-op turns, beside a plain Celery chain.

    python -m tests.benchmarks.speed --rounds 5 --sessions 500 --turns 5

Each session is `turns` turns, one after the other; each turn keeps 1 KiB.  The clock runs from before the
first start to the end of the last session, starts included.  Two worker processes on every side: one
``celery worker -c 2`` has two pool children, ours is two workers of one process each.

==============  =================================================================================
advised-delay   prefork -c 2, acks_late, prefetch 4, json, results ignored; next turn by `.delay()`
advised-chain   the same, next turn by Celery's own `chain`
tuned-delay     the first with ``ack_emulation: False``, ``priority_steps: [0]``
tuned-chain     the second with the same
ours-1          one turn per ticket: a Celery task per turn
ours-50         up to 50 turns per ticket
==============  =================================================================================

The faster of delay and chain is the baseline of its row.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.benchmarks import ours, plain_celery
from tests.benchmarks.harness import Arena, Cost, Meter, end_on_sigterm, interleave
from tests.benchmarks.report import (
    Bar,
    Spread,
    finish,
    machine,
    pairwise,
    show_machine,
    table,
    write_json,
)

BASELINES = ("advised-delay", "advised-chain", "tuned-delay", "tuned-chain")
OURS = ("ours-1", "ours-50")
PROCESSES = 2
PLACES = 100  # turns at once in one process of ours
BARS = {("ours-1", "advised"): 2.5, ("ours-1", "tuned"): 1.5, ("ours-50", "advised"): 5.0, ("ours-50", "tuned"): 3.0}


@dataclass(frozen=True, slots=True)
class Sample:
    """One variant in one round, its results checked."""

    variant: str
    round: int
    turns: int
    cost: Cost

    @property
    def rate(self) -> float:
        return self.turns / self.cost.seconds

    @property
    def cpu(self) -> float:
        """CPU seconds of workers, store and client per 1,000 turns."""
        return self.cost.cpu * 1000 / self.turns


class WrongResult(AssertionError):
    """A system did not do the work it was measured at."""


def plain(arena: Arena, variant: str, sessions: int, turns: int) -> Cost:
    """Measure one plain Celery variant."""
    mode, _, way = variant.partition("-")
    celery = plain_celery.start(arena, mode, children=PROCESSES)
    start = celery.start_chain if way == "chain" else celery.start_delay
    names = [f"s{number}" for number in range(sessions)]
    meter = Meter(arena)
    for name in names:
        start(name, turns)
    arena.wait(lambda: arena.redis.llen(plain_celery.DONE) >= sessions, what=variant, timeout=300)
    cost = meter.read()
    celery.close()
    ended: Any = arena.redis.lrange(plain_celery.DONE, 0, -1)
    states: Any = arena.redis.mget([f"state:{name}" for name in names])
    if sorted(ended) != sorted(names):
        raise WrongResult(f"{variant}: {len(ended)} ends for {sessions} sessions")
    if any(state is None or len(state) != 1024 or int(state[:4]) != turns for state in states):
        raise WrongResult(f"{variant}: a session's state is not that of turn {turns}")
    return cost


def our(arena: Arena, variant: str, sessions: int, turns: int) -> Cost:
    """Measure ours at the turns per ticket that `variant` names."""
    per_ticket = int(variant.partition("-")[2])
    options = {"workers": PROCESSES, "concurrency": PLACES, "turns_per_ticket": per_ticket}
    with ours.our_fleet(arena, **options) as fleet:
        return timed(arena, fleet, "s", sessions, turns)


def timed(arena: Arena, fleet: ours.OurFleet, prefix: str, sessions: int, turns: int, sleep: float = 0.0) -> Cost:
    """Start the sessions one by one, wait for their ends, hold them to their results.

    The clock stops when the last run is terminal in the store, by the server's own time: the last turn reports on
    the baseline's list a moment before its commit.
    """
    inputs = [ours.job(f"{prefix}{number}", turns, sleep) for number in range(sessions)]
    meter, begun = Meter(arena), time.time()
    runs = fleet.start("bench", inputs)
    fleet.wait(runs, timeout=600)
    cost = meter.read()
    last = fleet.check(runs, turns)
    ends: Any = arena.redis.lrange(plain_celery.DONE, 0, -1)
    if sorted(ends) != sorted(one["session"] for one in inputs):
        raise WrongResult(f"{len(ends)} ends for {sessions} sessions")
    arena.redis.delete(plain_celery.DONE)
    return replace(cost, seconds=max(cost.seconds, last - begun))


def measure(variant: str, index: int, sessions: int, turns: int) -> Sample:
    system: Callable[[Arena, str, int, int], Cost] = our if variant in OURS else plain
    with Arena() as arena:
        return Sample(variant, index, sessions * turns, system(arena, variant, sessions, turns))


def show(samples: Sequence[Sample], variants: Sequence[str]) -> tuple[str, list[Bar]]:
    """Give the table and the bars."""
    rates = {name: [s.rate for s in samples if s.variant == name] for name in variants}
    best = {row: fastest(rates, row) for row in ("advised", "tuned")}
    rows = []
    for name in variants:
        mine = [sample for sample in samples if sample.variant == name]
        ratio = [f"{pairwise(rates[name], rates[base]).median:.2f}" if base else "-" for base in best.values()]
        rows.append(
            [
                name,
                Spread.of(rates[name]).show(),
                *ratio,
                Spread.of([sample.cpu for sample in mine]).show(2),
                *(f"{Spread.of([part(s.cost) * 1000 / s.turns for s in mine]).median:.2f}" for part in PARTS.values()),
                f"{max(sample.cost.peak_rss for sample in mine) / 2**20:,.0f}",
            ]
        )
    head = ["variant", "turns/s", "x advised", "x tuned", "CPU s/1000", *PARTS, "RSS MiB"]
    bars = [
        Bar(f"{name} / {base}", pairwise(rates[name], rates[base]).median, bound)
        for (name, row), bound in BARS.items()
        if name in variants and (base := best[row])
    ]
    return table(head, rows), bars


PARTS: dict[str, Callable[[Cost], float]] = {
    "workers": lambda cost: cost.workers,
    "store": lambda cost: cost.store,
    "client": lambda cost: cost.client,
    "others": lambda cost: cost.others,
}


def fastest(rates: dict[str, list[float]], row: str) -> str | None:
    """The baseline of a row: its variant with the higher median."""
    candidates = [name for name in rates if name.startswith(row)]
    return max(candidates, key=lambda name: Spread.of(rates[name]).median, default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[*BASELINES, *OURS], help="these variants alone")
    parser.add_argument("--json", type=Path, help="write every sample here")
    options = parser.parse_args()
    end_on_sigterm()

    variants = options.only or [*BASELINES, *OURS]
    with Arena() as arena:
        facts = machine(arena.server_version())
    print(show_machine(facts))
    print(f"\n{options.sessions} sessions x {options.turns} turns, {options.rounds} interleaved rounds\n")

    samples = []
    for index, variant in interleave(variants, options.rounds):
        sample = measure(variant, index, options.sessions, options.turns)
        samples.append(sample)
        print(
            f"  round {index + 1}  {variant:<14} {sample.rate:8,.0f} turns/s  {sample.cpu:6.2f} CPU s/1000",
            flush=True,
        )
    text, bars = show(samples, variants)
    print(f"\n{text}\n")
    record = {
        "benchmark": "speed",
        "options": vars(options),
        "machine": facts,
        "samples": [
            {"variant": s.variant, "round": s.round, "turns": s.turns, "rate": s.rate, **s.cost.asdict()}
            for s in samples
        ],
        "bars": [bar.asdict() for bar in bars],
    }
    write_json(options.json, record)
    finish(bars)


if __name__ == "__main__":
    main()
