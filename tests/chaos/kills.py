"""Kill workers, coordinators and Redis under load, and measure how long the victims take to go on.

    python -m tests.chaos.kills --sessions 100 --kills 20

A session's turn appends its number to the thread's state.  Afterwards every session has completed, every number is
there once in each version of its thread, and the doctor finds nothing.
"""

import argparse
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from techrevati.fleet.client import Client, Run
from techrevati.store.records import Checkpoint, Event, Status
from tests.acceptance.support import Cluster, Process, eventually

TURNS, SECONDS = 6, 0.25


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kill: what died, how many turns it held, and when the first and last of them were claimed again."""

    victim: str
    turns: int
    first: float
    last: float


@dataclass(slots=True)
class Tally:
    """What a round of faults has cost."""

    recoveries: list[Recovery] = field(default_factory=list)
    fenced: int = 0
    expired: int = 0
    turns: int = 0

    @property
    def slowest(self) -> float:
        return max((one.last for one in self.recoveries), default=0.0)


def start(client: Client, role: str, sessions: int, turns: int = TURNS) -> list[Run]:
    job = {"turns": turns, "seconds": SECONDS}
    return client.start_many([{"agent": f"hardy.{role}", "input": job} for _ in range(sessions)])


def busy(cluster: Cluster, client: Client, runs: Sequence[Run], least: int) -> None:
    """Wait until turns run, so that a kill hits something."""

    def running() -> bool:
        statuses = cluster.statuses(client, [run.id for run in runs])
        return statuses.count(Status.RUNNING) >= least or all(status.is_terminal for status in statuses)

    eventually(running, f"{least} turns run", 30)


def held_by(client: Client, runs: Sequence[Run], victim: Process) -> list[tuple[Run, int]]:
    """Give the turns that a worker has; when it is dead, nobody moves them before their leases end."""
    mark, found = f":{victim.pid}:", []
    for run in runs:
        record = run.status()
        if record.status is Status.RUNNING and mark in record.worker:
            found.append((run, record.turn))
    return found


def has_work(client: Client, runs: list[Run], victim: Process, sessions: int, role: str) -> None:
    """Wait until this worker runs turns, with new sessions as the old ones end, so that a kill hits something."""

    def holds() -> bool:
        if all(run.status().status.is_terminal for run in runs[-sessions // 2 :]):
            runs.extend(start(client, role, sessions))
        return bool(held_by(client, runs[-2 * sessions :], victim))

    eventually(holds, f"{victim.name} runs a turn", 30)


def claimed_again(run: Run, turn: int, after: float) -> float | None:
    """Give when a turn was begun anew."""
    begun = [
        event.at
        for event in run.events(follow=False)
        if event.type == "turn.started" and event.data["turn"] == turn and event.at > after
    ]
    return begun[0] if begun else None


def recovery(victim: Process, held: Sequence[tuple[Run, int]], timeout: float = 30.0) -> Recovery | None:
    """Measure from a kill to the next claims of the victim's turns."""
    waits: list[float] = []
    for run, turn in held:
        claimed = partial(claimed_again, run, turn, victim.killed_at)
        again = eventually(claimed, f"turn {turn} of {run.id} is claimed again", timeout)
        assert again is not None
        waits.append(again - victim.killed_at)
    return Recovery(victim.name, len(held), min(waits), max(waits)) if waits else None


def verify(cluster: Cluster, client: Client, runs: Sequence[Run], tally: Tally, turns: int = TURNS) -> None:
    """Hold every session to its turns: each committed once, in order, and nothing lost."""
    whole = list(range(1, turns + 1))
    for run in runs:
        assert run.result(timeout=60) == whole, run.status()
        events: list[Event] = list(run.events())
        assert [event.seq for event in events if event.n == 0] == list(range(1, events[-1].seq + 1))
        assert [event.data["turn"] for event in events if event.type == "turn.committed"] == whole
        assert [event.data["turn"] for event in events if event.type == "counted"] == whole
        tally.expired += sum(event.type == "turn.expired" for event in events)
        tally.turns += turns
        record = run.status()
        keys, owner = client.keys(run.id), (record.tenant, record.thread_id)
        entries = client.store.command("XRANGE", keys.checkpoints(*owner), "-", "+")
        said = client.store.command("LLEN", keys.messages(*owner))
        versions = [Checkpoint.parse(entry) for entry in entries]
        assert [version.version for version in versions] == whole, "one version per turn"
        assert len({version.commit for version in versions}) == turns
        assert said == turns + 1
    tally.fenced = sum(
        one.log().count("commit refused") + one.log().count("its lease is lost") for one in cluster.processes
    )
    cluster.healthy(keys=True)


def kill_workers(
    cluster: Cluster, sessions: int, kills: int, *, role: str = "alpha", workers: int = 2, seed: int = 7
) -> Tally:
    """kill -9 a worker in the middle of its turns, again and again; each is replaced at once."""
    tally, draw = Tally(), random.Random(seed)
    client = cluster.client(role)
    alive = [cluster.worker(role, wait=False) for _ in range(workers)]
    for worker in alive:
        cluster.wait_worker(worker)
    runs = start(client, role, sessions)
    for _ in range(2 * kills):  # a kill that hit no turn, all having just ended, is not counted
        if len(tally.recoveries) == kills:
            break
        for worker in alive:  # what is measured is the lease, not how fast a process comes up
            cluster.wait_worker(worker)
        victim = alive.pop(draw.randrange(len(alive)))
        has_work(client, runs, victim, sessions, role)
        victim.kill()
        held = held_by(client, runs, victim)
        alive.append(cluster.worker(role, wait=False))
        if (measured := recovery(victim, held)) is not None:
            tally.recoveries.append(measured)
        cluster.healthy()
    assert len(tally.recoveries) == kills, "too many kills hit no turn"
    verify(cluster, client, runs, tally)
    for worker in alive:
        worker.kill()
    return tally


def table(rows: Sequence[tuple[str, Tally]], limit: float) -> str:
    """Draw what was measured."""
    lines = [
        f"{'fault':<34} {'kills':>5} {'victim turns':>12} {'first':>7} {'median':>7} {'last':>7} {'limit':>6} "
        f"{'expired':>7} {'refused':>7}"
    ]
    for name, tally in rows:
        waits = [one.last for one in tally.recoveries]
        shown = (
            (
                f"{min(one.first for one in tally.recoveries):.2f} s",
                f"{statistics.median(waits):.2f} s",
                f"{max(waits):.2f} s",
            )
            if waits
            else ("-", "-", "-")
        )
        lines.append(
            f"{name:<34} {len(waits):>5} {sum(one.turns for one in tally.recoveries):>12} "
            f"{shown[0]:>7} {shown[1]:>7} {shown[2]:>7} {limit:>4.1f} s {tally.expired:>7} {tally.fenced:>7}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lease-ttl", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="techrevati-chaos-") as home,
        Cluster(Path(home), lease_ttl=chosen.lease_ttl, lease_renewal=chosen.lease_ttl / 4) as cluster,
    ):
        cluster.coordinator()
        begun = time.monotonic()
        tally = kill_workers(cluster, chosen.sessions, chosen.kills, workers=chosen.workers, seed=chosen.seed)
        limit = cluster.settings.lease_ttl + 1
        print(table([("kill -9 of a worker mid-turn", tally)], limit))
        print(
            f"{tally.turns} turns committed once each, {time.monotonic() - begun:.0f} s, "
            f"lease TTL {cluster.settings.lease_ttl:g} s"
        )
        return 0 if tally.slowest <= limit else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
