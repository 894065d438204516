"""A real worker process per test, its log, and what its tasks told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pytest
import redis

from techrevati.fleet.celery.app import FleetCelery, make_celery
from tests.integration.celery.sample_tasks import register

ROOT = Path(__file__).parents[3]
START = 90.0
"""Seconds in which a worker must be up; a bound for what never comes, not a measure of machines that are busy."""


def wait_until(true: Callable[[], object], what: str, timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


class Worker:
    """``celery -A … worker`` on its own queue."""

    def __init__(self, fleet: str, url: str, log: Path, *flags: str, **settings: float) -> None:
        self.fleet, self._log_path = fleet, log
        self.app: FleetCelery = register(make_celery(fleet, broker_url=url, role="writer"), url)
        self.redis: redis.Redis = redis.Redis.from_url(url, decode_responses=True)
        self.queue = f"{fleet}.role.writer"
        env = {
            **os.environ,
            "SAMPLE_FLEET": fleet,
            "SAMPLE_URL": url,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(log.parent),
        }
        env |= {f"SAMPLE_{name.upper()}": str(value) for name, value in settings.items()}
        self._log = log.open("w")
        command = ["celery", "-A", "tests.integration.celery.sample_app", "worker", "-l", "INFO", *flags]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command], env=env, cwd=ROOT, stdout=self._log, stderr=subprocess.STDOUT
        )

    def ready(self) -> Self:
        self.wait_log(" ready.", START)
        return self

    def log(self) -> str:
        return self._log_path.read_text()

    def wait_log(self, text: str, timeout: float = 15.0) -> None:
        def said() -> bool:
            assert self.process.poll() is None or text in self.log(), f"worker died:\n{self.log()[-4000:]}"
            return text in self.log()

        try:
            wait_until(said, f"{text!r} in the log", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-4000:]}") from None

    def send(self, name: str, *args: Any, **options: Any) -> str:
        return str(self.app.tasks[name].apply_async(args, queue=self.app.conf.task_queues[0], **options).id)

    def told(self) -> list[str]:
        return [str(line) for line in self.redis.lrange(f"{self.fleet}:told", 0, -1)]

    def wait_told(self, line: str, timeout: float = 15.0) -> None:
        try:
            wait_until(lambda: line in self.told(), f"told {line!r}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()[-5:]}\n{self.log()[-4000:]}") from None

    def waiting(self) -> int:
        length: int = self.redis.llen(self.queue)
        return length

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_exit(self, timeout: float = 15.0) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"worker still runs:\n{self.log()[-4000:]}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()
        self.app.close()
        self.redis.close()
        self.app.recorder._redis.close()


class StartWorker(Protocol):
    def __call__(self, *flags: str, url: str | None = None, **settings: float) -> Worker: ...


@pytest.fixture
def start_worker(redis_url: str, fleet_name: str, tmp_path: Path) -> Iterator[StartWorker]:
    workers: list[Worker] = []

    def start(*flags: str, url: str | None = None, **settings: float) -> Worker:
        log = tmp_path / f"worker{len(workers)}.log"
        workers.append(Worker(fleet_name, url or redis_url, log, *flags, **settings))
        return workers[-1].__enter__()

    yield start
    for worker in workers:
        worker.__exit__(None, None, None)
