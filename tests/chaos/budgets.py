"""Many processes spend from the same budgets while Redis is killed and restarted; then the books are audited.

    python -m tests.chaos.budgets --processes 8 --calls 4000 --restarts 5

    8 processes: reserve ─▶ settle less · settle all · release · abandon        one of them is killed (-9)
    this one:    look at every level, all the time; kill -9 and restart Redis; audit

What is asserted, in micro-dollars:

    at every look, at every level   spent + reserved <= limit
    at the end                      spent + reserved == what the processes say they spent, and what they left open
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from techrevati.store.budgets import Book, Budget, BudgetRefused, Cost, Limit, Limits, Reservation, Scope
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.records import pairs
from techrevati.store.sync import SyncStore

ROOT = Path(__file__).parents[2]
FLEET, TENANTS, PROJECTS, RUNS = "hammer", ("acme", "zeta"), ("p1", "p2", "p3"), 20
MOST = 9_999  # micro-dollars that one call may cost
KILLED = 0  # the process that is killed


def limits(calls: int) -> Limits:
    """Limits that so many calls per process reach."""
    tenant = Limit(calls * MOST // 2)
    return Limits(
        run=(Limit(max(2 * MOST, tenant.amount // 8)),), project=(Limit(tenant.amount // 2),), tenant=(tenant,)
    )


@dataclass(slots=True)
class Said:
    """What one process says it did."""

    admitted: int = 0
    refused: int = 0
    committed: dict[str, int] = field(default_factory=dict)
    """Tenant -> micro-dollars settled, and estimates of what it left open."""

    def count(self, tenant: str, micros: int) -> None:
        self.committed[tenant] = self.committed.get(tenant, 0) + micros


def work(url: str, number: int, calls: int, log: Path) -> None:
    """Spend, as one process of a fleet; every call is on disk before it is counted."""
    rng, said = random.Random(number), Said()
    with SyncStore(url, patience=60) as store, log.open("w", buffering=1) as out:
        budget = Budget(store, FLEET, limits=limits(calls))
        for ordinal in range(calls):
            tenant = rng.choice(TENANTS)
            scope = Scope(tenant, project=rng.choice(PROJECTS), run=f"r{rng.randrange(RUNS)}")
            estimate = rng.randint(1, MOST)
            try:
                made = budget.reserve(scope, f"{number}:{ordinal}", Cost(estimate), timeout=rng.choice((0.0, 600.0)))
            except BudgetRefused:
                said.refused += 1
                out.write(json.dumps(asdict(said)) + "\n")
                continue
            said.admitted += 1
            said.count(tenant, finish(budget, made, rng))
            out.write(json.dumps(asdict(said)) + "\n")


def finish(budget: Budget, made: Reservation, rng: random.Random) -> int:
    """End a call one way or another, some of them twice; give what it cost."""
    match rng.randrange(10):
        case 0:
            budget.release(made)
            budget.release(made)
            return 0
        case 1:
            return made.estimate.usd  # abandoned: written off when its lease is over
        case 2:
            budget.settle(made, made.estimate)
            return made.estimate.usd
        case _:
            actual = rng.randint(0, made.estimate.usd)
            budget.settle(made, Cost(actual))
            budget.settle(made, Cost(actual + 1))  # the first settlement counts
            return actual


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the audit found."""

    admitted: int
    refused: int
    looks: int
    restarts: int
    killed: bool
    committed: dict[str, int]
    said: dict[str, int]
    over: list[str]

    @property
    def is_sound(self) -> bool:
        return not self.over and self.committed == self.said and self.refused > 0


def levels() -> list[str]:
    return ["tenant", *(f"project:{name}" for name in PROJECTS), *(f"run:r{n}" for n in range(RUNS))]


def overspent(tenant: str, book: Book) -> Iterator[str]:
    for level in book.levels.values():
        for name, account in level.accounts.items():
            if account.limit is not None and account.committed > account.limit:
                yield f"{tenant} {level.id} {name}: {account.committed} > {account.limit}"


@contextmanager
def spenders(url: str, directory: Path, processes: int, calls: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    argv = [sys.executable, "-m", "tests.chaos.budgets", "--work", url, "--calls", str(calls)]
    begun = [
        subprocess.Popen([*argv, "--number", str(n), "--log", str(directory / f"{n}.log")], cwd=ROOT)
        for n in range(processes)
    ]
    try:
        yield begun
    finally:
        for process in begun:
            if process.poll() is None:
                process.kill()
            process.wait()


def hammer(processes: int, calls: int, restarts: int, *, kill: bool = True, timeout: float = 600) -> Outcome:
    """Run it once and audit."""
    with (
        tempfile.TemporaryDirectory(prefix="hammer-") as name,
        EmbeddedRedis(options={"appendfsync": "always"}) as server,
        SyncStore(server.url, patience=30) as store,
    ):
        directory, budget = Path(name), Budget(store, FLEET, limits=limits(calls))
        by_the_killed = dict[str, int]()
        over, looks, done, killed, deadline = list[str](), 0, 0, False, time.monotonic() + timeout
        with spenders(server.url, directory, processes, calls) as begun:
            while any(process.poll() is None for process in begun):
                assert time.monotonic() < deadline, "the processes did not end"
                for tenant in TENANTS:
                    over += overspent(tenant, budget.look(tenant, *levels()))
                    looks += 1
                progress = sum(_lines(directory / f"{n}.log") for n in range(processes)) / (processes * calls)
                if done < restarts and progress > (done + 1) / (restarts + 1) * 0.6:
                    server.restart(sig=signal.SIGKILL)
                    done += 1
                if kill and not killed and progress > 0.2:
                    os.kill(begun[KILLED].pid, signal.SIGKILL)
                    begun[KILLED].wait()
                    killed = True
                    by_the_killed = {tenant: _by_the_killed(store, tenant) for tenant in TENANTS}
            failed = [n for n, process in enumerate(begun) if process.returncode and not (killed and n == KILLED)]
            assert not failed, f"processes {failed} failed"
        said = total([directory / f"{n}.log" for n in range(processes) if not (killed and n == KILLED)], by_the_killed)
        committed = dict[str, int]()
        for tenant in TENANTS:
            book = budget.look(tenant, *levels())
            over += overspent(tenant, book)
            committed[tenant] = book.committed
    return Outcome(said.admitted, said.refused, looks, done, killed, committed, said.committed, sorted(set(over)))


def total(logs: Sequence[Path], by_the_killed: Mapping[str, int]) -> Said:
    """Add up what the processes say; the killed one cannot, the records of its calls do."""
    said = Said(committed={tenant: by_the_killed.get(tenant, 0) for tenant in TENANTS})
    for log in logs:
        last = Said(**json.loads(log.read_text("ascii").splitlines()[-1]))
        said.admitted, said.refused = said.admitted + last.admitted, said.refused + last.refused
        for tenant, micros in last.committed.items():
            said.count(tenant, micros)
    return said


def _by_the_killed(store: SyncStore, tenant: str) -> int:
    """Add up what the killed process spent, from the records that Redis keeps of its calls."""
    found = 0
    for name in store.redis.scan_iter(match=f"budget:{{{FLEET}/{tenant}}}:call:{KILLED}:*", count=1000):
        call = pairs(store.command("HGETALL", name))
        found += int(call["paid"].split()[0] if "paid" in call else call["usd"])
    return found


def _lines(path: Path) -> int:
    return path.read_text("ascii").count("\n") if path.exists() else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--calls", type=int, default=4000, help="per process")
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.work:
        work(options.work, options.number, options.calls, options.log)
        return 0
    begun = time.monotonic()
    outcome = hammer(options.processes, options.calls, options.restarts, timeout=3600)
    print(json.dumps(asdict(outcome), indent=2))
    print(f"{'SOUND' if outcome.is_sound else 'NOT SOUND'} after {time.monotonic() - begun:.0f} s")
    return 0 if outcome.is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
