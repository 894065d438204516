"""A whole fleet of real processes for a test: Redis, coordinators, Celery workers.

    Cluster ── EmbeddedRedis of its own
       ├── worker("alpha")      celery -A tests.acceptance.worker worker, in its own process group
       ├── coordinator()        techrevati coordinator --fleet accept
       └── client("alpha")      declares that role's agents, as an application would

Everything dies with the cluster; the logs of a cluster are in its directory, and end up in the failure.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import redis

from techrevati.fleet.client import Client
from techrevati.fleet.settings import Settings, load_settings
from techrevati.store import doctor
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.keys import PartitionKeys
from techrevati.store.records import Status
from techrevati.store.sync import SyncStore
from tests.acceptance.agents import FLEET, make_fleet

T = TypeVar("T")

START = 90.0
"""Seconds in which a process must be up; a bound for what never comes, not a measure of machines that are busy."""

ROOT = Path(__file__).parents[2]
QUICK = {
    "lease_ttl": 2.0,
    "lease_renewal": 0.5,
    "heartbeat": 1.0,
    "partition_lease": 1.5,
    "sweep_interval": 0.25,
    "ticket_patience": 0.5,
    "consumer_stall": 3.0,
    "drain_grace": 2.0,
    "cancel_grace": 3.0,
    "concurrency": 100,
}
"""Settings of a test fleet: everything that takes seconds in production, shorter."""


def eventually(true: Callable[[], T], what: str, timeout: float = 15.0) -> T:
    """Give the first truthy answer within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := true()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)
    return answer


class Process:
    """One process of the cluster, leader of its own group."""

    def __init__(self, name: str, command: list[str], env: Mapping[str, str], log: Path) -> None:
        self.name, self.log_path = name, log
        self._log = log.open("w")
        self.process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.killed_at = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def wait_log(self, text: str, timeout: float = 30.0) -> None:
        def said() -> bool:
            seen = text in self.log()
            assert seen or self.alive, f"{self.name} died:\n{self.log()[-4000:]}"
            return seen

        eventually(said, f"{text!r} in the log of {self.name}", timeout)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.killed_at = time.time()
        if self.alive:
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(10)
        self._log.close()

    def wait_exit(self, timeout: float = 20.0) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs:\n{self.log()[-4000:]}") from None


class Cluster:
    """One fleet on one machine; see the module's sketch."""

    def __init__(
        self,
        home: Path,
        *,
        redis_options: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.redis = EmbeddedRedis(options=redis_options)
        self.given = {**QUICK, **settings}
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TECHREVATI_", "OTEL_"))},
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "ACCEPTANCE_HOME": str(home),
            "TMPDIR": str(home),  # who is killed leaves what it had there
            **(env or {}),
        }
        self.processes: list[Process] = []
        self._clients: list[Client] = []

    # -- starting ----------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        return load_settings(redis_url=self.redis.url, **self.given)

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        settings = {f"TECHREVATI_{name.upper()}": str(value) for name, value in self.given.items()}
        return {**self.env, "TECHREVATI_REDIS_URL": self.redis.url, **settings, **more}

    def spawn(self, name: str, command: list[str], env: Mapping[str, str]) -> Process:
        log = self.home / f"{len(self.processes):02}-{name}.log"
        process = Process(name, command, self._environment(env), log)
        self.processes.append(process)
        return process

    def worker(
        self, role: str, *flags: str, peer: str = "", wait: bool = True, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a worker of a role; its agents may hand off to those of `peer`."""
        process = self.spawn(
            f"worker-{role}",
            [sys.executable, "-m", "celery", "-A", "tests.acceptance.worker", "worker", "-l", "INFO", *flags],
            {"ACCEPTANCE_ROLE": role, "ACCEPTANCE_PEER": peer, **(env or {})},
        )
        if wait:
            self.wait_worker(process)
        return process

    def wait_worker(self, process: Process) -> None:
        """Wait until a worker has announced its places."""
        process.wait_log(f" serves {process.name.removeprefix('worker-')} in ", START)

    def coordinator(self, *, wait: bool = True, env: Mapping[str, str] | None = None) -> Process:
        process = self.spawn(
            "coordinator", [sys.executable, "-m", "techrevati.cli", "coordinator", "--fleet", FLEET], env or {}
        )
        if wait:
            process.wait_log("sweeps partitions", START)
        return process

    def client(self, role: str = "alpha", *, peer: str = "") -> Client:
        """Give an application's client, which declares the agents of a role."""
        fleet = make_fleet(role, peer, settings=self.settings)
        client = fleet.client()
        assert client.partitions == self.partitions  # it connects, and so declares
        self._clients.append(client)
        return client

    # -- looking -----------------------------------------------------------------------------------

    @contextmanager
    def raw(self) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(self.redis.url, decode_responses=True) as client:
            yield client

    def dump(self) -> dict[str, bytes | None]:
        """Give every key with its serialized value, but for what time alone changes."""
        with redis.Redis.from_url(self.redis.url) as client:
            keys = sorted(client.scan_iter())
            lively = (b"clock:", b"workers:", b"pool:", b"tickets:", b"stats:", b"coordinators:", b"sweeper:", b"meta:")
            return {key.decode(): client.dump(key) for key in keys if not key.startswith(lively)}

    def told(self, prefix: str = "") -> list[str]:
        """Give what agents have told, in order; `prefix` picks lines."""
        diary = self.home / "diary"
        lines = diary.read_text().splitlines() if diary.exists() else []
        return [line for line in lines if line.startswith(prefix)]

    def wait_told(self, prefix: str, timeout: float = 15.0, count: int = 1) -> list[str]:
        return eventually(
            lambda: lines if len(lines := self.told(prefix)) >= count else [],
            f"{count} x told {prefix!r}; last told: {self.told()[-5:]}",
            timeout,
        )

    def open(self, gate: str) -> None:
        """Let agents pass that wait at a gate."""
        (self.home / f"gate-{gate}").touch()

    def arm(self, seam: str, nth: int = 1) -> None:
        """Have the worker that is the next, or the `nth`, to come to a named crash point die there, once."""
        (self.home / f"seam-{seam}").write_text(str(nth))

    def findings(self, *, keys: bool = False) -> list[doctor.Finding]:
        with SyncStore(self.redis.url) as store:
            return doctor.check(store, FLEET, self.partitions, keys=keys)

    def healthy(self, *, keys: bool = False) -> None:
        """Hold the fleet to the one invariant."""
        found = self.findings(keys=keys)
        assert not found, "\n".join(map(str, found))

    @property
    def partitions(self) -> int:
        return self.settings.partitions

    def keys(self, run_id: str) -> PartitionKeys:
        return PartitionKeys(FLEET, int(run_id.rpartition(".")[2]))

    def statuses(self, client: Client, run_ids: list[str]) -> list[Status]:
        return [client.record(run_id).status for run_id in run_ids]

    # -- ending ------------------------------------------------------------------------------------

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for process in self.processes:
            process.kill()
        self.redis.close()

    def logs(self, last: int = 3000) -> str:
        return "\n".join(f"== {one.name} ({one.log_path.name})\n{one.log()[-last:]}" for one in self.processes)

    def __enter__(self) -> Self:
        self.redis.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
