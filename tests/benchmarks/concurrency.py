"""How many turns one worker process holds.

    python -m tests.benchmarks.concurrency --sessions 2000 10000 --rounds 3

For each count one worker process with that many places runs, in this order and in the same process:

    no-op   sleeping   no-op   sleeping   no-op  ...

1. no-op: `sessions` x `turns` turns that do nothing: the rate, starts included;
2. sleeping: the same with each turn sleeping `sleep` s, as it would on a model's answer.

A sleeping part can end no sooner than ``turns * sleep``, nor sooner than the process can turn its turns over, and
should end within 1.3 times the larger of the two.  It is held to the mean rate of the no-op parts just before and just
after it: the speed of a shared machine drifts by a third within minutes, and this way the drift falls on both.
The median of the rounds is judged.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks import ours
from tests.benchmarks.harness import Arena, Cost, Meter, end_on_sigterm
from tests.benchmarks.report import Bar, Spread, finish, machine, show_machine, table, write_json
from tests.benchmarks.speed import timed

SLACK = 1.3


@dataclass(frozen=True, slots=True)
class Held:
    """What one process did with this many sessions; one no-op part more than sleeping ones."""

    sessions: int
    turns: int  # all of one part
    floor: float  # s that the sleeps of one session take
    noops: Sequence[Cost]
    sleeps: Sequence[Cost]
    baseline_rss: int  # bytes of coordinator and worker when warm

    @property
    def ideals(self) -> list[float]:
        """Give for each sleeping part the s it cannot beat."""
        around = (statistics.mean((before.seconds, after.seconds)) for before, after in pairwise(self.noops))
        return [max(self.floor, seconds) for seconds in around]

    @property
    def ratios(self) -> Spread:
        return Spread.of([part.seconds / ideal for part, ideal in zip(self.sleeps, self.ideals, strict=True)])


def hold(arena: Arena, sessions: int, turns: int, sleep: float, per_ticket: int, rounds: int) -> Held:
    """Run all parts on one fresh fleet."""
    options = {"workers": 1, "concurrency": sessions, "turns_per_ticket": per_ticket}
    with ours.our_fleet(arena, **options) as fleet:
        warm = Meter(arena).read().peak_rss
        noops, sleeps = [timed(arena, fleet, "n0", sessions, turns)], []
        for number in range(1, rounds + 1):
            sleeps.append(timed(arena, fleet, f"s{number}", sessions, turns, sleep))
            noops.append(timed(arena, fleet, f"n{number}", sessions, turns))
    return Held(sessions, sessions * turns, turns * sleep, noops, sleeps, warm)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, nargs="+", default=[2000, 10_000])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sleep", type=float, default=0.5)
    parser.add_argument("--turns-per-ticket", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    end_on_sigterm()

    results: list[Held] = []
    facts: dict[str, str] = {}
    for sessions in options.sessions:
        with Arena() as arena:
            facts = facts or machine(arena.server_version())
            held = hold(arena, sessions, options.turns, options.sleep, options.turns_per_ticket, options.rounds)
        results.append(held)
    print(show_machine(facts))
    print(f"\none process, {options.turns} turns per session, {options.sleep:g} s of sleep per turn\n")
    head = ["sessions", "no-op turns/s", "sleeping s", "ideal s", "ratio", "CPU s", "RSS MiB warm", "RSS MiB peak"]
    rows = [
        [
            f"{held.sessions:,}",
            Spread.of([held.turns / part.seconds for part in held.noops]).show(),
            Spread.of([part.seconds for part in held.sleeps]).show(2),
            Spread.of(held.ideals).show(2),
            held.ratios.show(2),
            Spread.of([part.cpu for part in held.sleeps]).show(2),
            f"{held.baseline_rss / 2**20:,.0f}",
            f"{held.sleeps[-1].peak_rss / 2**20:,.0f}",
        ]
        for held in results
    ]
    print(table(head, rows), end="\n\n")
    bars = [Bar(f"{held.sessions} sessions, x ideal", held.ratios.median, SLACK, at_least=False) for held in results]
    record: dict[str, Any] = {"benchmark": "concurrency", "options": vars(options), "machine": facts}
    record["results"] = [
        {
            "sessions": held.sessions,
            "noop": [part.asdict() for part in held.noops],
            "sleeping": [part.asdict() for part in held.sleeps],
            "ideal": held.ideals,
            "ratio": held.ratios.median,
        }
        for held in results
    ]
    write_json(options.json, record | {"bars": [bar.asdict() for bar in bars]})
    finish(bars)


if __name__ == "__main__":
    main()
