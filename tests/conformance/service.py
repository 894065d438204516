"""A fleet whose only worker is beside the test: a real Celery worker, whose agents are declared as tests go.

    test ──run_coroutine──▶ the worker's loop: FleetWorld ──AsyncClient──▶ Redis ──ticket──▶ Celery's consumer
                                            turn ◀── engine ◀── pool ◀──────────────────────────┘

Its agents are closures over the test's own lists, so the worker shares the test's process, and its loop the test's
coroutine.  Everything between a start and a turn is as in production: broker, tickets, claims, commits, the
coordinator in a process of its own.  That nothing else is shared is proved by `tests.acceptance`, whose workers are
processes that get killed.
"""

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections import ChainMap
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from celery.exceptions import SecurityWarning
from celery.worker import state as celery_state

from techrevati.fleet.fleet import Fleet
from techrevati.fleet.models import ModelClient, Models
from techrevati.fleet.outcome import Outcome
from techrevati.fleet.settings import load_settings
from techrevati.fleet.turn import Turn
from techrevati.store.keys import PartitionKeys
from tests.acceptance.support import QUICK, ROOT, eventually

T = TypeVar("T")

ROLE = "rules"
WITHIN = 30.0
"""Seconds for one rule."""


class AnyModel(Models):
    """One client for every name."""

    client: ModelClient

    def __getitem__(self, name: str) -> ModelClient:
        return self.client


@contextmanager
def _own_logging() -> Iterator[None]:
    """Take back what a worker that starts does to its process's logging."""
    root, ours = logging.getLogger(), logging.getLogger("techrevati")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])


async def _nothing(turn: Turn) -> Outcome:
    return turn.complete()


class LateFleet(Fleet):
    """A fleet whose worker serves what is declared after it was started."""

    @property
    def served(self) -> Any:
        return ChainMap(self.agents, self.tools)


class RuleFleet:
    """Started once for all rules."""

    def __init__(self, name: str, redis_url: str, home: Path) -> None:
        settings = load_settings(redis_url=redis_url, **{**QUICK, "consumer_stall": 60.0, "lease_ttl": 10.0})
        self.fleet = LateFleet(name, settings=settings)
        self.models = self.fleet.models = AnyModel()
        self.fleet.agent(ROLE, name="nothing")(_nothing)
        self._home = home
        self._worlds = 0
        self._worker: Any = None
        self._thread = threading.Thread(target=self._serve, name="celery-worker", daemon=True)
        self._fault: BaseException | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = self._worker.pool.loop
        return loop

    def keys(self, run_id: str) -> PartitionKeys:
        return PartitionKeys(self.fleet.name, int(run_id.rpartition(".")[2]))

    def next_tenant(self) -> str:
        """Give each world a tenant: their threads have the same names."""
        self._worlds += 1
        return f"world-{self._worlds}"

    def run(self, work: Coroutine[Any, Any, T], timeout: float = WITHIN) -> T:
        """Run a test's coroutine on the worker's loop."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), self.loop).result(timeout + 5)

    def __enter__(self) -> Self:
        self._thresholds, self._switching = gc.get_threshold(), sys.getswitchinterval()
        log = (self._home / "coordinator.log").open("w")
        self._coordinator = subprocess.Popen(
            [sys.executable, "-m", "techrevati.cli", "coordinator", "--fleet", self.fleet.name],
            env=self._environment(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        try:
            with warnings.catch_warnings(), _own_logging():
                warnings.filterwarnings("ignore", r"\s*You're running the worker with superuser", SecurityWarning)
                self._thread.start()
                eventually(self._is_up, "the worker is up", 30)
        except BaseException:
            self._end()
            raise
        return self

    def _is_up(self) -> bool:
        assert self._thread.is_alive(), f"the worker did not start: {self._fault}"
        return self._worker is not None and getattr(self._worker.consumer, "task_consumer", None) is not None

    def _environment(self) -> dict[str, str]:
        given = self.fleet.settings.model_dump(exclude_unset=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("TECHREVATI_", "OTEL_"))}
        return {
            **clean,
            **{f"TECHREVATI_{name.upper()}": str(value) for name, value in given.items()},
            "PYTHONPATH": str(ROOT),
        }

    def _serve(self) -> None:
        try:
            app = self.fleet.celery_for(ROLE)
            self._worker = app.Worker(loglevel="WARNING", quiet=True)
            self._worker.start()
        except SystemExit:
            pass  # how Celery's worker ends
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for the worker
            self._fault = error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        celery_state.should_stop = 0
        self._thread.join(20)
        celery_state.should_stop = None
        self._coordinator.terminate()
        self._coordinator.wait(10)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()
        sys.setswitchinterval(self._switching)
