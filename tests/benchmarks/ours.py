"""The one place where the benchmarks touch techrevati.

    OurFleet(arena) ── coordinator + worker processes, ready ──▶ start · wait · look · history

The benchmarks know only this class; what it needs of the product is what an application needs: the
command line to run processes, `Client` to start runs and read them, the environment for settings.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from techrevati.fleet import Client
from techrevati.runtime.errors import TechrevatiError
from techrevati.store.keys import PartitionKeys, partition_of
from tests.benchmarks.harness import Arena, Started, WorkerDied
from tests.benchmarks.plain_celery import DONE

AGENTS = "tests.benchmarks.agents"
FLEET = "bench"
ROLE = "bench"
TENANT = "default"


class OurFleet:
    """The coordinator and the workers of one arena, and a client of them.

    Args:
        workers: worker processes; each takes `concurrency` turns at once, of every agent.
        turns_per_ticket: how many turns one Celery task may do.
        lease_ttl: s; None leaves the product's default.
    """

    def __init__(
        self,
        arena: Arena,
        *,
        workers: int,
        concurrency: int,
        turns_per_ticket: int = 1,
        lease_ttl: float | None = None,
    ) -> None:
        self._arena = arena
        self.env = {
            "TECHREVATI_REDIS_URL": arena.url,
            "TECHREVATI_CONCURRENCY": str(concurrency),
            "TECHREVATI_TURNS_PER_TICKET": str(turns_per_ticket),
            "TECHREVATI_LOG_LEVEL": "WARNING",
        }
        if lease_ttl is not None:
            self.env["TECHREVATI_LEASE_TTL"] = str(lease_ttl)
        coordinator = ("python", "-m", "techrevati.cli", "coordinator", f"{AGENTS}:fleet")
        arena.spawn("coordinator", *coordinator, env=self.env)
        celery = ("python", "-m", "celery", "-A", AGENTS, "worker", "-l", "warning")
        self.workers: list[Started] = [
            arena.spawn(f"worker-{number}", *celery, "-n", f"worker-{number}@%h", env=self.env)
            for number in range(workers)
        ]
        self.client = Client(arena.url, fleet=FLEET)

    def close(self) -> None:
        self.client.close()

    def warm(self, *, timeout: float = 60.0) -> None:
        """Return when every worker process has done a turn: ready, connected, scripts loaded."""
        deadline = time.monotonic() + timeout
        # Runs started before a pool is known would wait for the coordinator to send their tickets.
        self._arena.wait(self._has_pool, what="heartbeats", timeout=timeout)
        seen: set[int] = set()
        while len(seen) < len(self.workers):
            try:
                runs = self.start("bench", [job("warm", 1, 0.02)] * (8 * len(self.workers)))
                seen |= {int(run.result(timeout=10)["pid"]) for run in runs}
            except TechrevatiError as error:  # no worker has declared the agents yet
                if time.monotonic() > deadline:
                    raise WorkerDied("our fleet", f"{error!r}\n{self.workers[0].tail()}") from error
                self._arena.check()
                time.sleep(0.05)
        self._arena.redis.delete(DONE)

    def _has_pool(self) -> bool:
        everywhere = [PartitionKeys(FLEET, p).tickets(ROLE) for p in range(self.client.partitions)]
        return all(int(self._arena.redis.hget(key, "window") or 0) > 0 for key in everywhere)

    def start(self, agent: str, inputs: Sequence[Mapping[str, Any]], *, named: bool = False) -> list[Any]:
        """Start one run per input, one after the other as the baseline does.

        With `named`, the thread of a run has its session's name, so that it can be read without the run.
        """
        if named:
            return [self.client.start(agent, one, thread_id=one["session"]) for one in inputs]
        return [self.client.start(agent, one) for one in inputs]

    def wait(self, runs: Sequence[Any], *, timeout: float) -> None:
        """Return when the last turn of every run has said so, on the same list as the baseline's."""
        self._arena.wait(
            lambda: int(self._arena.redis.llen(DONE)) >= len(runs), what="ends of sessions", timeout=timeout
        )

    def check(self, runs: Sequence[Any], turns: int) -> float:
        """Hold every run to its result; give the instant of the last end by the server's clock (s, epoch)."""
        last = 0.0
        for run in runs:
            output = run.result(timeout=30)
            if output["turns"] != turns:
                raise AssertionError(f"run {run.id} did {output['turns']} turns")
            last = max(last, run.status().ended or 0.0)
        return last

    def ended(self, run: Any, *, timeout: float) -> bool:
        """Wait for the end of one run; False if it did not come in time, or came without a result."""
        try:
            run.result(timeout=timeout)
        except TechrevatiError:
            return False
        return True

    def links(self, thread: str) -> list[str]:
        """Read the chain of one thread from the store itself: one message per committed turn."""
        keys = PartitionKeys(FLEET, partition_of(TENANT, thread, self.client.partitions))
        found: Any = self._arena.redis.lrange(keys.messages(TENANT, thread), 0, -1)
        messages = [msgspec.json.decode(text) for text in found]
        return [message["content"] for message in messages if message["role"] == "assistant"]


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
