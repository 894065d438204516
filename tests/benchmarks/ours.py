"""The one place where the benchmarks touch techrevati.

    OurFleet(arena) ── coordinator + worker processes, ready ──▶ start · wait · look · history

The benchmarks know only this class; what it needs of the product is what an application needs: the
command line to run processes, `Client` to start runs and read them, the environment for settings.
"""

import importlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from tests.benchmarks.harness import Arena, Started, WorkerDied
from tests.benchmarks.plain_celery import DONE

MODULE = "tests.benchmarks.agents:fleet"


@cache
def missing() -> str | None:
    """Say why our side cannot run on this tree, or None."""
    try:
        module = importlib.import_module("techrevati.fleet")
    except ImportError as error:
        return str(error)
    for name in ("Fleet", "Client"):
        if not hasattr(module, name):
            return f"techrevati.fleet has no {name} yet"
    return None


class OurFleet:
    """The coordinator and the workers of one arena, and a client of them.

    Args:
        workers: worker processes; each takes `concurrency` turns at once, of every role.
        turns_per_ticket: how many turns one Celery task may do.
        lease_ttl: s; None leaves the product's default.
    """

    def __init__(
        self,
        arena: Arena,
        *,
        workers: int,
        concurrency: int,
        roles: Sequence[str] = ("bench",),
        turns_per_ticket: int = 1,
        lease_ttl: float | None = None,
    ) -> None:
        self._arena, self._roles = arena, roles
        self.env = {"TECHREVATI_REDIS_URL": arena.url, "TECHREVATI_TURNS_PER_TICKET": str(turns_per_ticket)}
        if lease_ttl is not None:
            self.env["TECHREVATI_LEASE_TTL"] = str(lease_ttl)
        cli = ("python", "-m", "techrevati.cli.main")
        self.coordinator = arena.spawn("coordinator", *cli, "coordinator", MODULE, env=self.env)
        select = [word for role in roles for word in ("--role", role)]
        command = (*cli, "worker", MODULE, *select, "--concurrency", str(concurrency))
        self.workers: list[Started] = [
            arena.spawn(f"worker-{number}", *command, env=self.env) for number in range(workers)
        ]
        fleet: Any = importlib.import_module("techrevati.fleet")
        self.client: Any = fleet.Client(arena.url, fleet="bench")

    def close(self) -> None:
        if close := getattr(self.client, "close", None):
            close()

    def warm(self, *, timeout: float = 60.0) -> None:
        """Return when every worker process has done a turn: ready, connected, scripts loaded."""
        deadline = time.monotonic() + timeout
        seen: set[int] = set()
        for _ in range(1_000_000):
            try:
                runs = [self.client.start("bench", job("warm", 1, 0.02)) for _ in range(8 * len(self.workers))]
                seen |= {int(run.result(timeout=timeout)["pid"]) for run in runs}
            except Exception as error:  # an unknown role until the first heartbeat, whatever its class
                if time.monotonic() > deadline:
                    raise WorkerDied("our fleet", f"{error!r}\n{self.workers[0].tail()}") from error
                self._arena.check()
                time.sleep(0.05)
            if len(seen) >= len(self.workers):
                break
        self._arena.redis.delete(DONE)

    def start(self, role: str, inputs: Sequence[Mapping[str, Any]], *, name: bool = False) -> list[Any]:
        """Start one run per input, one after the other as the baseline does; `name` its thread by its session."""
        if not name:
            return [self.client.start(role, one) for one in inputs]
        return [self.client.start(role, one, thread_id=one["session"]) for one in inputs]

    def wait(self, runs: Sequence[Any], *, timeout: float) -> None:
        """Return when every run is terminal.

        The clock of the benchmark runs, so looking must not cost the workers their CPU: first the same
        list that the baseline fills, then the state of every run, which its last commit makes terminal.
        """
        self._arena.wait(lambda: self._arena.redis.llen(DONE) >= len(runs), what="ends of sessions", timeout=timeout)
        for run in reversed(runs):
            run.result(timeout=timeout)

    def ended(self, run: Any, *, timeout: float) -> bool:
        """Wait for the end of one run; False if it did not come in time."""
        try:
            run.result(timeout=timeout)
        except TimeoutError:
            return False
        return True

    def turns(self, runs: Sequence[Any]) -> list[int]:
        """How many turns each completed run says it did."""
        return [int(run.result(timeout=10)["turns"]) for run in runs]

    def links(self, thread_id: str) -> list[str]:
        """Read the chain of one thread from the store: one link per committed turn."""
        return [str(message["content"]).split()[1] for message in self.client.thread(thread_id).messages]


@contextmanager
def our_fleet(arena: Arena, **options: Any) -> Iterator[OurFleet]:
    """A warm fleet; see `OurFleet` for the options."""
    fleet = OurFleet(arena, **options)
    try:
        fleet.warm()
        yield fleet
    finally:
        fleet.close()


def job(session: str, turns: int, sleep: float = 0.0) -> dict[str, Any]:
    """The input of one `bench` run."""
    return {"session": session, "turns": turns, "sleep": sleep}
