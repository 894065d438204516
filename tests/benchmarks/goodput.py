"""Honest goodput: what is left of the work when a worker process is killed every 10 s.

    python -m tests.benchmarks.goodput --seconds 60

    Poisson arrivals ──▶ sessions of log-normal turns ──▶ chain in the store ──▶ verifier, workers dead
                               ▲ kill -9 of one worker, seeded; a supervisor starts it again

Each turn's result hashes the result before it, read back from the store (`chain`).  Arrivals come at
`load` (80 %) of saturation: all places busy with turns of the mean length.  When the last session that
arrived has had time to end, every worker is killed and the store alone is judged: only sessions whose chain
is whole count, and a turn that was committed must not have run again.

``plain`` is the Celery baseline as its documentation advises (late acks, prefork).  What its killed workers
held comes back after the visibility timeout of an hour, so within the run it is lost.
"""

import argparse
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from redis import Redis

from tests.benchmarks import ours, plain_celery
from tests.benchmarks.chain import ENDED, HISTORY, MEAN, STARTED, Begun, Kill, Verdict, is_whole, judge, recoveries
from tests.benchmarks.harness import Arena, Started, end_on_sigterm
from tests.benchmarks.report import Bar, finish, machine, percentile, show_machine, table, write_json

TTL = 15.0  # s, the product's default lease


class System(Protocol):
    """What a system must do to be tested."""

    def start(self, session: str, turns: int) -> None: ...

    def last_end(self, sessions: Sequence[str], deadline: float) -> float:
        """Wait until all sessions ended, or until `deadline`; give the instant of the last end seen."""

    def links(self, session: str) -> Sequence[str]: ...

    def fate(self, session: str) -> str:
        """Say in a line what became of a session that is not whole."""


class PlainSystem:
    """Celery as advised; its chain is a list per session."""

    def __init__(self, arena: Arena, workers: int, places: int) -> None:
        self._arena = arena
        self._celery = plain_celery.start(arena, "advised", children=places, workers=workers)
        self.workers = list(arena.started)

    def start(self, session: str, turns: int) -> None:
        self._celery.prove.delay(session, 1, turns)

    def last_end(self, sessions: Sequence[str], deadline: float) -> float:
        ended, at = 0, time.monotonic()
        while ended < len(sessions) and time.monotonic() < deadline:
            time.sleep(0.1)
            if (now := int(self._arena.redis.scard(ENDED))) > ended:
                ended, at = now, time.monotonic()
        return at

    def links(self, session: str) -> Sequence[str]:
        found: Any = self._arena.redis.lrange(HISTORY + session, 0, -1)
        return [str(link) for link in found]

    def fate(self, session: str) -> str:
        return f"{session}: {len(self.links(session))} links"


class OurSystem:
    """Our fleet; the chain is the thread's state, and its messages are the record of its commits."""

    def __init__(self, fleet: ours.OurFleet) -> None:
        self._fleet = fleet
        self.workers = fleet.workers
        self._runs: dict[str, Any] = {}

    def start(self, session: str, turns: int) -> None:
        (self._runs[session],) = self._fleet.start("chain", [{"session": session, "turns": turns}], named=True)

    def last_end(self, sessions: Sequence[str], deadline: float) -> float:
        for session in sessions:
            self._fleet.ended(self._runs[session], timeout=max(0.1, deadline - time.monotonic()))
        return time.monotonic()

    def links(self, session: str) -> Sequence[str]:
        return self._fleet.links(session)

    def fate(self, session: str) -> str:
        found = self._runs[session].status()
        return (
            f"{session}: {len(self.links(session))} links, {found.status} in {found.home or 'no home'}, "
            f"turn {found.turn}, attempt {found.attempt}, {found.why} {found.error or ''}".rstrip(", ")
        )


@dataclass(slots=True)
class Killer:
    """Kills one worker every `every` s and starts it again; which one and when is seeded."""

    arena: Arena
    workers: Sequence[Started]
    every: float
    seed: int
    kills: list[Kill] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def at_work(self) -> Any:
        thread = threading.Thread(target=self._run, name="killer", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        chance = random.Random(self.seed)
        names = [worker.name for worker in self.workers]
        begin = time.monotonic()
        for number in range(1, 1_000_000):
            # Within the interval, not on its edge: a fixed beat could fall in step with the lease renewals.
            at = begin + self.every * (number - 0.5 + chance.random() / 2)
            if self._stop.wait(max(0.0, at - time.monotonic())):
                return
            name = chance.choice(names)
            (victim,) = [one for one in self.arena.started if one.name == name]
            pids = frozenset(process.pid for process in victim.tree())
            now = time.monotonic()
            victim.kill()
            self.kills.append(Kill(pids, now))
            self.arena.restart(victim)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One system's run."""

    name: str
    offered: float  # turns/s that arrived
    window: float  # s from the first arrival to the last end that was seen
    verdict: Verdict
    kills: int
    waits: Sequence[float]  # s from a kill to the second begin of each turn it interrupted
    refusals: int | None  # stale commits that fencing refused; None = the system does not count them
    broken: Sequence[str]  # what became of each session that is not whole

    @property
    def goodput(self) -> float:
        return self.verdict.whole_turns / self.window


def drive(arena: Arena, name: str, system: System, workers: Sequence[Started], options: argparse.Namespace) -> Outcome:
    """Offer the load under kills, let the last sessions end, kill everything, judge the store."""
    rate = options.load * options.workers * options.places / MEAN / options.turns  # sessions/s
    arrivals = random.Random(options.seed)
    killer = Killer(arena, workers, options.every, options.seed)
    sessions: list[str] = []
    begin = time.monotonic()
    with killer.at_work():
        due = begin
        while (due := due + arrivals.expovariate(rate)) < begin + options.seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            sessions.append(f"{name}-{len(sessions)}")
            system.start(sessions[-1], options.turns)
        arrived = time.monotonic()
    window = system.last_end(sessions, arrived + options.drain) - begin
    for started in arena.started:
        started.kill()

    raw: Any = arena.redis.lrange(STARTED, 0, -1)
    begun = [Begun.decode(text) for text in raw]
    histories = {session: system.links(session) for session in sessions}
    broken = [one for one in sessions if not is_whole(one, histories[one], options.turns)]
    return Outcome(
        name,
        len(sessions) * options.turns / (arrived - begin),
        window,
        judge(histories, begun, options.turns),
        len(killer.kills),
        recoveries(killer.kills, begun),
        refusals(arena) if name == "ours" else None,
        [system.fate(session) for session in broken],
    )


def refusals(arena: Arena) -> int | None:
    """Read how many stale commits the store refused."""
    with Redis.from_url(arena.url, decode_responses=True) as client:
        return sum(int(client.hget(key, "fenced") or 0) for key in client.scan_iter("clock:*"))


def run(name: str, options: argparse.Namespace) -> Outcome:
    with Arena() as arena:
        if name == "plain":
            plain = PlainSystem(arena, options.workers, options.places)
            return drive(arena, name, plain, plain.workers, options)
        with ours.our_fleet(
            arena,
            workers=options.workers,
            concurrency=options.places,
            lease_ttl=options.lease_ttl,
        ) as fleet:
            return drive(arena, name, OurSystem(fleet), fleet.workers, options)


def show(outcomes: Sequence[Outcome]) -> str:
    head = ["figure", *(outcome.name for outcome in outcomes)]
    lines: list[tuple[str, Callable[[Outcome], str]]] = [
        ("offered turns/s", lambda one: f"{one.offered:.1f}"),
        ("goodput turns/s", lambda one: f"{one.goodput:.1f}"),
        ("sessions", lambda one: f"{one.verdict.sessions}"),
        ("whole", lambda one: f"{one.verdict.whole}"),
        ("kills", lambda one: f"{one.kills}"),
        ("turns begun again after a kill", lambda one: f"{one.verdict.restarted}"),
        ("recovery s, p50", lambda one: f"{percentile(one.waits, 0.5):.2f}" if one.waits else "-"),
        ("recovery s, max", lambda one: f"{max(one.waits):.2f}" if one.waits else "-"),
        ("committed turns run again", lambda one: f"{one.verdict.reran}"),
        ("turns committed twice", lambda one: f"{one.verdict.doubled}"),
        ("stale commits refused", lambda one: "-" if one.refusals is None else f"{one.refusals}"),
        ("window s", lambda one: f"{one.window:.1f}"),
    ]
    return table(head, [[label, *(figure(outcome) for outcome in outcomes)] for label, figure in lines])


def bars_of(one: Outcome, ttl: float) -> list[Bar]:
    bars = [
        Bar("sessions not whole", one.verdict.sessions - one.verdict.whole, 0, at_least=False),
        Bar("committed turns run again", one.verdict.reran, 0, at_least=False),
        Bar("turns committed twice", one.verdict.doubled, 0, at_least=False),
    ]
    if one.waits:
        bars.append(Bar("slowest recovery, s", max(one.waits), ttl + 1.0, at_least=False))
    return bars


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--systems", nargs="+", choices=["plain", "ours"], default=["plain", "ours"])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long sessions arrive")
    parser.add_argument("--drain", type=float, default=60.0, help="how long the last of them may take")
    parser.add_argument("--every", type=float, default=10.0, help="s between kills")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--places", type=int, default=20, help="turns at once per worker")
    parser.add_argument("--load", type=float, default=0.8, help="share of saturation that arrives")
    parser.add_argument("--lease-ttl", type=float, default=TTL)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    end_on_sigterm()

    with Arena() as arena:
        facts = machine(arena.server_version())
    outcomes = [run(name, options) for name in options.systems]
    print(show_machine(facts))
    print(
        f"\n{options.workers} workers x {options.places} places, {options.load:.0%} of saturation, "
        f"kill -9 every {options.every:g} s for {options.seconds:g} s, seed {options.seed}\n"
    )
    print(show(outcomes), end="\n\n")
    for one in outcomes:
        for fate in one.broken if one.name == "ours" else ():
            print(f"not whole: {fate}")
    bars = [bar for one in outcomes if one.name == "ours" for bar in bars_of(one, options.lease_ttl)]
    record: dict[str, Any] = {"benchmark": "goodput", "options": vars(options), "machine": facts}
    record["outcomes"] = [
        {
            "system": one.name,
            "offered": one.offered,
            "goodput": one.goodput,
            "window": one.window,
            "whole": one.verdict.whole,
            "sessions": one.verdict.sessions,
            "reran": one.verdict.reran,
            "doubled": one.verdict.doubled,
            "restarted": one.verdict.restarted,
            "kills": one.kills,
            "recoveries": list(one.waits),
            "refusals": one.refusals,
            "broken": list(one.broken),
        }
        for one in outcomes
    ]
    write_json(options.json, record | {"bars": [bar.asdict() for bar in bars]})
    finish(bars)


if __name__ == "__main__":
    main()
