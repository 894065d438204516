"""How many turns one worker process holds.

    python -m tests.benchmarks.concurrency --sessions 2000 10000

For each count one worker process with that many places runs, in this order and in the same process:

1. `sessions` x `turns` no-op turns: the rate, starts included;
2. the same with each turn sleeping `sleep` s, as it would on a model's answer.

The second can end no sooner than ``turns * sleep``, nor sooner than the process can turn its turns over;
it should end within 1.3 times the larger of the two.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import ours
from tests.benchmarks.harness import Arena, Cost, Meter, end_on_sigterm
from tests.benchmarks.report import Bar, finish, machine, show_machine, table, write_json
from tests.benchmarks.speed import timed

SLACK = 1.3


@dataclass(frozen=True, slots=True)
class Held:
    """What one process did with this many sessions."""

    sessions: int
    turns: int  # all of them
    floor: float  # s that the sleeps of one session take
    noop: Cost
    sleeping: Cost
    baseline_rss: int  # bytes of coordinator and worker when warm

    @property
    def rate(self) -> float:
        return self.turns / self.noop.seconds

    @property
    def ideal(self) -> float:
        return max(self.floor, self.turns / self.rate)


def hold(arena: Arena, sessions: int, turns: int, sleep: float, per_ticket: int) -> Held:
    """Run both parts on one fresh fleet."""
    options = {"workers": 1, "concurrency": sessions, "turns_per_ticket": per_ticket}
    with ours.our_fleet(arena, **options) as fleet:
        warm = Meter(arena).read().peak_rss
        noop = timed(arena, fleet, "n", sessions, turns)
        sleeping = timed(arena, fleet, "s", sessions, turns, sleep)
    return Held(sessions, sessions * turns, turns * sleep, noop, sleeping, warm)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, nargs="+", default=[2000, 10_000])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sleep", type=float, default=0.5)
    parser.add_argument("--turns-per-ticket", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    end_on_sigterm()

    results: list[Held] = []
    facts: dict[str, str] = {}
    for sessions in options.sessions:
        with Arena() as arena:
            facts = facts or machine(arena.server_version())
            held = hold(arena, sessions, options.turns, options.sleep, options.turns_per_ticket)
        results.append(held)
    print(show_machine(facts))
    print(f"\none process, {options.turns} turns per session, {options.sleep:g} s of sleep per turn\n")
    head = ["sessions", "no-op turns/s", "sleeping s", "ideal s", "ratio", "CPU s", "RSS MiB warm", "RSS MiB peak"]
    rows = [
        [
            f"{held.sessions:,}",
            f"{held.rate:,.0f}",
            f"{held.sleeping.seconds:.2f}",
            f"{held.ideal:.2f}",
            f"{held.sleeping.seconds / held.ideal:.2f}",
            f"{held.sleeping.cpu:.2f}",
            f"{held.baseline_rss / 2**20:,.0f}",
            f"{held.sleeping.peak_rss / 2**20:,.0f}",
        ]
        for held in results
    ]
    print(table(head, rows), end="\n\n")
    bars = [
        Bar(f"{held.sessions} sessions, s", held.sleeping.seconds, SLACK * held.ideal, at_least=False)
        for held in results
    ]
    record: dict[str, Any] = {"benchmark": "concurrency", "options": vars(options), "machine": facts}
    record["results"] = [
        {
            "sessions": held.sessions,
            "noop": held.noop.asdict(),
            "sleeping": held.sleeping.asdict(),
            "ideal": held.ideal,
        }
        for held in results
    ]
    write_json(options.json, record | {"bars": [bar.asdict() for bar in bars]})
    finish(bars)


if __name__ == "__main__":
    main()
