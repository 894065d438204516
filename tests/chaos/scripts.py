"""Which scripts a run costs, and how many bytes are sent for them.

MONITOR ──EVALSHA──▶ name, bytes      ECHO between two runs ──▶ where the next begins
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import redis

from techrevati.store.scripts import names, script
from tests.acceptance.support import Cluster

OF_NO_RUN = frozenset({"run_sweep", "run_renew", "pool_beat", "partition_lease"})
NEXT, END = "the next run begins", "the end of what is noted"


@dataclass(slots=True)
class Cost:
    """What was called between two marks: how often each script, and the bytes of all of them."""

    scripts: Counter[str] = field(default_factory=Counter)
    sent: int = 0


class Costs:
    """The costs of the runs so far; whole once the block has ended."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.runs: list[Cost] = []

    def next_run(self) -> None:
        self._client.echo(NEXT)


@contextmanager
def noting(cluster: Cluster) -> Iterator[Costs]:
    """Note what each run costs, from one `next_run` to the following."""
    known = {script(name).sha: name for name in names()}
    begun = threading.Event()

    def follow() -> None:
        with redis.Redis.from_url(cluster.redis.url) as client, client.monitor() as monitor:
            begun.set()
            for said in monitor.listen():
                command = said["command"]
                if END in command:
                    return
                if NEXT in command:
                    costs.runs.append(Cost())
                elif said["client_type"] != "lua" and costs.runs and command.startswith("EVALSHA"):
                    name = known.get(command.split(" ", 2)[1], "")
                    if name not in OF_NO_RUN:
                        costs.runs[-1].scripts[name] += 1
                        costs.runs[-1].sent += len(command)

    with cluster.raw() as client:
        costs = Costs(client)
        thread = threading.Thread(target=follow)
        thread.start()
        begun.wait(10)
        yield costs
        client.echo(END)
        thread.join(10)
