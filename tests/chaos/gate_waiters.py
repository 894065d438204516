"""Many processes wait at one gate: in order, with a call each, and over the death of some of them.

python -m tests.chaos.gate_waiters --processes 8 --waiters 50 --slots 4

    all slots held ── waiters come, one after another, from all processes ── [SIGKILL of some] ── the slots are let go
    a bucket that is empty ── the same ── each starts when its token comes
"""

import argparse
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import BucketSpec, Gate, GateSpec, SlotSpec
from techrevati.store.sync import SyncStore

SPAWN = multiprocessing.get_context("spawn")
FLEET, TIMEOUT = "slots", 30.0


@dataclass(slots=True)
class Report:
    """What one process's waiters met: (number, monotonic start), and the calls it made of Redis."""

    starts: list[tuple[int, float]] = field(default_factory=list)
    trips: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all together met."""

    waiters: int
    admitted: int
    overtaken: int
    """Those that started behind more than the slots' number of others that came later."""
    most_held: int
    slots: int
    calls: int
    """Of those that waited and were admitted; settling is not counted."""
    seconds: float

    @property
    def calls_per_waiter(self) -> float:
        return self.calls / max(1, self.admitted)

    @property
    def holds(self) -> bool:
        return self.admitted == self.waiters and self.overtaken == 0 and self.most_held <= self.slots

    def __str__(self) -> str:
        what = f"{self.most_held} of {self.slots} slots held at most" if self.slots else "of a bucket"
        return (
            f"{self.admitted} of {self.waiters} waiters let out in {self.seconds:.2f} s, {self.overtaken} overtaken, "
            f"{what}; {self.calls_per_waiter:.3f} calls per waiter"
        )


RATE = 100.0


def spec(slots: int) -> GateSpec:
    """So many slots; 0: one bucket instead, that gives a token each 10 ms."""
    if slots:
        return GateSpec(name="slots", slots=SlotSpec(most=slots), margin=0.0)
    return GateSpec(name="bucket", buckets=(BucketSpec("rpm", 1, RATE),), horizon=None)


def process(url: str, slots: int, hold: float, pipe: Connection) -> None:
    """Have threads wait as told: a number joins, "end" reports once all of them are done."""
    report, threads, lock = Report(), list[threading.Thread](), threading.Lock()
    with SyncStore(url) as store:
        gate = Gate(store, FLEET, spec(slots))

        def wait(number: int) -> None:
            admission = gate.admit({} if slots else {"rpm": 1}, wait=60.0, timeout=TIMEOUT)
            with lock:
                report.starts.append((number, time.monotonic()))
            time.sleep(hold)
            gate.settle(admission)

        pipe.send("ready")
        while (told := pipe.recv()) != "end":
            threads.append(threading.Thread(target=wait, args=(told,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(60)
        report.trips = gate.core.trips - 1  # it was declared, once
        pipe.send(report)
        gate.close()


def run(server: EmbeddedRedis, *, processes: int, waiters: int, slots: int, hold: float, kill: int = 0) -> Verdict:
    """Let `waiters` of each process come in turn; kill the last `kill` processes while they stand in line."""
    pipes, children = [], []
    for _ in range(processes):
        ours, theirs = SPAWN.Pipe()
        child = SPAWN.Process(target=process, args=(server.url, slots, hold, theirs), daemon=True)
        child.start()
        pipes.append(ours)
        children.append(child)
    for pipe in pipes:
        pipe.recv()
    with SyncStore(server.url) as store:
        gate = Gate(store, FLEET, spec(slots))
        held = [gate.admit(timeout=120.0) for _ in range(slots)]
        if not slots:  # so much is owed that all of them are there before the first starts
            gate.settle(gate.admit({"rpm": 1}), costs={"rpm": RATE * (1.0 + 0.02 * processes * waiters)})
        for number in range(processes * waiters):
            before = _waiting(gate)
            pipes[number % processes].send(number)
            _until(lambda: _waiting(gate) > before + 0.5)  # noqa: B023 - before the next one
        for child in children[processes - kill :]:
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join(10)
        begun = time.monotonic()
        for admission in held:
            gate.settle(admission)
        for pipe in pipes[: processes - kill]:
            pipe.send("end")
        reports: list[Report] = [pipe.recv() for pipe in pipes[: processes - kill]]
        seconds = time.monotonic() - begun
        gate.close()
    for child in children:
        child.join(10)
    starts = sorted((start for report in reports for start in report.starts), key=lambda one: one[1])
    order = [number for number, _ in starts]
    return Verdict(
        waiters=(processes - kill) * waiters,
        admitted=len(order),
        overtaken=_overtaken(order, max(1, slots)),
        most_held=_most_held([at for _, at in starts], hold) if slots else 0,
        slots=slots,
        calls=sum(report.trips - len(report.starts) for report in reports),
        seconds=seconds,
    )


def _waiting(gate: Gate) -> float:
    """Those in line, or the tokens that are promised: those that come back meanwhile are not counted."""
    picture = gate.look()
    return picture.in_line - sum(picture.levels.values()) + picture.seen.now_us * RATE / 1e6 * len(picture.levels)


class Victim:
    """A process that waits for a slot, and is killed the moment it has it."""

    def __init__(self, url: str, timeout: float) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_victim, args=(url, timeout, theirs), daemon=True)
        self._process.start()
        self._pipe.recv()

    def wait_in_line(self) -> None:
        self._pipe.send("wait")
        assert self._pipe.recv() == "stands"

    def kill_once_it_is_out(self) -> None:
        assert self._pipe.recv() == "out"
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(10)


def _victim(url: str, timeout: float, pipe: Connection) -> None:
    with SyncStore(url) as store:
        gate, looks = Gate(store, FLEET, spec(1)), Gate(store, FLEET, spec(1))

        def say_when_in_line() -> None:
            _until(lambda: looks.look().in_line > 0)
            pipe.send("stands")

        pipe.send("ready")
        pipe.recv()
        threading.Thread(target=say_when_in_line, daemon=True).start()
        gate.admit(wait=60.0, timeout=timeout)
        pipe.send("out")
        time.sleep(60)


def _overtaken(order: list[int], slots: int) -> int:
    """So many starts are under way at once; their processes may be told in any order among themselves."""
    return sum(sum(later > number for later in order[:place]) >= 2 * slots for place, number in enumerate(order))


def _most_held(starts: list[float], hold: float) -> int:
    return max(sum(at <= one < at + hold * 0.5 for at in starts) for one in starts)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.001)


def main() -> int:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--processes", type=int, default=8)
    told.add_argument("--waiters", type=int, default=50, help="of each process")
    told.add_argument("--slots", type=int, default=4)
    told.add_argument("--hold", type=float, default=0.02, help="seconds")
    how = told.parse_args()
    fine = True
    for slots, kill in ((0, 0), (how.slots, 0), (how.slots, 2)):
        with EmbeddedRedis() as server:
            verdict = run(server, processes=how.processes, waiters=how.waiters, slots=slots, hold=how.hold, kill=kill)
        held = verdict.holds and verdict.calls_per_waiter <= 1.2
        fine = fine and held
        killed = f"{kill} processes killed in the line: " if kill else ""
        print(f"{'PASS' if held else 'FAIL'}  {killed}{verdict}", flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
