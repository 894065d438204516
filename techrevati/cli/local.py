"""A whole fleet on this machine: Redis, coordinator, one worker process per role, and an end to all of them.

with LocalFleet("examples.newsroom:fleet", roles) as local: Client(local.url, …)
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from techrevati.runtime.errors import TechrevatiError
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.keys import PartitionKeys
from techrevati.store.sync import SyncStore

PR_SET_PDEATHSIG = 1


class ProcessEnded(TechrevatiError):
    """A process of the local fleet is gone before its time."""

    def __init__(self, name: str, code: int, log: str) -> None:
        super().__init__(name, code, log)
        self.name, self.code, self.log = name, code, log

    def __str__(self) -> str:
        return f"the {self.name} process ended with code {self.code}; its log ends with:\n{self.log}"


def _die_with_parent() -> None:
    """Have the kernel end this child if its parent is killed (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class LocalFleet:
    """The processes of one fleet, started together and gone together.

    They live in process groups of their own, so a terminal's Ctrl-C reaches this process only, which then ends
    them in order: workers first, while their store still answers.
    """

    def __init__(
        self,
        target: str,
        fleet: str,
        roles: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        url: str | None = None,
        concurrency: int = 50,
    ) -> None:
        self._target, self._fleet, self._roles = target, fleet, list(roles)
        self._environment, self._directory = dict(environment or {}), directory or Path.cwd()
        self._concurrency = concurrency
        self._redis = None if url else EmbeddedRedis()
        self.url = url or (self._redis.url if self._redis else "")
        self.logs = Path(tempfile.mkdtemp(prefix="techrevati-logs-"))
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._files: list[IO[bytes]] = []

    def start(self, *, timeout: float = 60.0) -> Self:
        """Start everything and wait until every role has a live worker.

        Raises:
            NoRedisServer, RedisDidNotStart, ProcessEnded, TimeoutError.
        """
        if self._redis is not None:
            self._redis.start()
        self._spawn("coordinator", "coordinator", self._target)
        for role in self._roles:
            self.spawn_worker(role)
        self._wait_for_pools(time.monotonic() + timeout)
        return self

    def spawn_worker(self, role: str) -> None:
        self._spawn(role, "worker", self._target, "--role", role, "--concurrency", str(self._concurrency))

    def _spawn(self, name: str, *arguments: str) -> None:
        log = (self.logs / f"{name}.log").open("ab")
        self._files.append(log)
        path = os.pathsep.join(filter(None, [str(self._directory), os.environ.get("PYTHONPATH", "")]))
        self._children[name] = subprocess.Popen(
            [sys.executable, "-m", "techrevati.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self._directory,
            env={**os.environ, **self._environment, "TECHREVATI_REDIS_URL": self.url, "PYTHONPATH": path},
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )

    def check(self) -> None:
        """Raise if a process has ended.

        Raises:
            ProcessEnded: with the end of its log.
        """
        for name, child in self._children.items():
            code = child.poll()
            if code is not None:
                raise ProcessEnded(name, code, self.log_tail(name))

    def log_tail(self, name: str, lines: int = 15) -> str:
        log = self.logs / f"{name}.log"
        return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:]) if log.exists() else ""

    @property
    def processes(self) -> dict[str, int]:
        """Name -> process id of what was started, Redis included."""
        found = {name: child.pid for name, child in self._children.items()}
        if self._redis is not None and self._redis.pid is not None:
            found["redis"] = self._redis.pid
        return found

    def _wait_for_pools(self, deadline: float) -> None:
        with SyncStore(self.url) as store:
            while True:
                self.check()
                commands = [("HLEN", PartitionKeys(self._fleet, 0).pool(role)) for role in self._roles]
                if all(store.commands(commands)):
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the workers of {self._fleet} did not come up; their logs are in {self.logs}")
                time.sleep(0.05)

    def reload(self) -> None:
        """Replace coordinator and workers by new processes of the same code base; runs go on."""
        self._end_children(10.0)
        self._children.clear()
        self._spawn("coordinator", "coordinator", self._target)
        for role in self._roles:
            self.spawn_worker(role)

    def _end_children(self, grace: float) -> None:
        for sig, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for child in self._children.values():
                if child.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.pid, sig)
            until = time.monotonic() + wait
            for child in self._children.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, until - time.monotonic()))

    def close(self, *, grace: float = 10.0) -> None:
        """End everything, in order, by force if need be; remove what was temporary."""
        self._end_children(grace)
        if self._redis is not None:
            self._redis.close()
        for file in self._files:
            file.close()
        for log in self.logs.glob("*.log"):
            log.unlink()
        with contextlib.suppress(OSError):
            self.logs.rmdir()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
