"""One run of one system: its Redis, its processes, and what they cost.

    Arena ── Redis (fresh, AOF everysec) ──┐
          ── worker processes ─────────────┼─▶ Meter ──▶ Cost: seconds, CPU of each party, peak RSS
          ── client (this process) ────────┘

Every run gets an arena of its own, so nothing of the run before it is left in a cache or a queue.
Nothing here waits by sleeping: a worker is ready when it has done work.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import redis

from techrevati.store.embedded import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]
TICK = 0.005  # s between two looks of a waiting client


class WorkerDied(RuntimeError):
    """A process of the run ended, or was not ready in time."""

    def __init__(self, name: str, log: str) -> None:
        super().__init__(name, log)
        self.name, self.log = name, log

    def __str__(self) -> str:
        return f"{self.name} is not working; its log ends with:\n{self.log}"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one measured stretch took."""

    seconds: float  # wall clock
    workers: float  # CPU s of every started process with its children
    store: float  # CPU s of the Redis server
    client: float  # CPU s of this process
    others: float  # CPU s that the rest of the machine used meanwhile: the noise
    peak_rss: int  # bytes, highest so far, summed over the started processes (shared pages count again)

    @property
    def cpu(self) -> float:
        return self.workers + self.store + self.client

    def asdict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(slots=True)
class Started:
    """One process (with its children) and where it writes."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    process: psutil.Popen = field(init=False)

    def __post_init__(self) -> None:
        with self.log.open("ab") as out:
            # A session of its own: killing the group must not reach the bench.
            self.process = psutil.Popen(
                list(self.argv),
                env=dict(self.env),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def tree(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """`kill -9`, children too: what the kernel does to a container."""
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])


class Arena:
    """A fresh Redis on a TCP port of 127.0.0.1, and the processes started against it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.started: list[Started] = []

    def __enter__(self) -> Self:
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        port = free_port()
        self.server = self._stack.enter_context(EmbeddedRedis(port=port))
        self.url = f"redis://127.0.0.1:{port}/0"
        self.redis: redis.Redis = self._stack.enter_context(redis.Redis.from_url(self.url, decode_responses=True))
        return self

    def __exit__(self, *_: object) -> None:
        # All that a run leaves is thrown away, so there is nothing to shut down politely.
        for started in self.started:
            started.kill()
        self._stack.close()

    def spawn(self, name: str, *argv: str, env: Mapping[str, str] | None = None) -> Started:
        """Start `argv`; an argument "python" in front becomes this interpreter."""
        command = [sys.executable, *argv[1:]] if argv[0] == "python" else list(argv)
        environment = {**os.environ, "BENCH_REDIS_URL": self.url, "PYTHONUNBUFFERED": "1", **(env or {})}
        started = Started(name, command, environment, self.directory / f"{name}.log")
        self.started.append(started)
        return started

    def restart(self, started: Started) -> Started:
        """Start a process that was killed once more, as a supervisor would."""
        again = Started(started.name, started.argv, started.env, started.log)
        self.started[self.started.index(started)] = again
        return again

    def check(self) -> None:
        """Raise `WorkerDied` if a process of this arena has ended by itself."""
        for started in self.started:
            if not started.alive():
                raise WorkerDied(started.name, started.tail())

    def wait(self, done: Callable[[], bool], *, what: str, timeout: float) -> None:
        """Look until `done`, while every process lives.

        Raises:
            WorkerDied: a process ended, or `timeout` passed.
        """
        deadline = time.monotonic() + timeout
        look = 0
        while not done():
            look += 1
            if look % 100 == 0:
                self.check()
            if time.monotonic() > deadline:
                tails = "\n".join(f"-- {one.name}\n{one.tail()}" for one in self.started)
                raise WorkerDied(f"{what}: waited {timeout:g} s in vain; a worker", tails)
            time.sleep(TICK)

    def server_version(self) -> str:
        info: Any = self.redis.info("server")
        return str(info["redis_version"])


class Meter:
    """Measures from its making to `read`."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._before = self._take()

    def read(self) -> Cost:
        after = self._take()
        seconds, workers, store, client, machine = (b - a for a, b in zip(self._before, after, strict=True))
        others = max(0.0, machine - workers - store - client)
        rss = sum(peak_rss(process) for started in self._arena.started for process in started.tree())
        return Cost(seconds, workers, store, client, others, rss)

    def _take(self) -> tuple[float, float, float, float, float]:
        store = self._arena.server.pid
        own = os.times()
        machine = psutil.cpu_times()
        return (
            time.monotonic(),
            sum(cpu_of(process) for started in self._arena.started for process in started.tree()),
            cpu_of(psutil.Process(store)) if store else 0.0,
            own.user + own.system,
            machine.user + machine.nice + machine.system + machine.irq + machine.softirq,
        )


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of one process and of its children that have ended."""
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def peak_rss(process: psutil.Process) -> int:
    """The kernel's own high-water mark: exact, and sampling would cost CPU.  Linux only, else what is now."""
    with suppress(OSError, psutil.NoSuchProcess):
        for line in Path(f"/proc/{process.pid}/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return int(process.memory_info().rss)
    return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def interleave(variants: Iterable[str], rounds: int) -> list[tuple[int, str]]:
    """A B C A B C …: whatever else the machine does falls on all variants alike."""
    names = list(variants)
    return [(index, name) for index in range(rounds) for name in names]


def end_on_sigterm() -> None:
    """Make SIGTERM unwind the arenas, so that a stopped bench leaves no process behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
