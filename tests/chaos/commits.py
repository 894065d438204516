"""What commits cost Redis: the bytes that are sent for each, and the time the script takes.

MONITOR ──every command, whole──▶ bytes      SLOWLOG, from 0 µs ──▶ µs of each
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import redis

from techrevati.store.scripts import script
from tests.acceptance.support import Cluster


@dataclass(slots=True)
class Commits:
    """Commits in the order they came: bytes of each, microseconds of each."""

    sent: list[int] = field(default_factory=list)
    took: list[int] = field(default_factory=list)


@contextmanager
def listening(cluster: Cluster) -> Iterator[Commits]:
    """Note every commit until the end of the block; the lists are whole after it."""
    sha, seen = script("turn_commit").sha, Commits()
    end = "the end of what is noted"
    begun = threading.Event()

    def follow() -> None:
        with redis.Redis.from_url(cluster.redis.url) as client, client.monitor() as monitor:
            begun.set()
            for said in monitor.listen():
                if said["client_type"] != "lua" and sha in said["command"][:60]:
                    seen.sent.append(len(said["command"]))
                if end in said["command"]:
                    return

    thread = threading.Thread(target=follow)
    with cluster.raw() as client:
        client.config_set("slowlog-log-slower-than", 0)
        client.config_set("slowlog-max-len", 1_000_000)
        thread.start()
        begun.wait(10)
        yield seen
        client.echo(end)
        thread.join(10)
        log = reversed(client.slowlog_get(1_000_000))
        seen.took = [one["duration"] for one in log if sha in _text(one["command"])[:60]]


def _text(command: bytes | str) -> str:
    return command.decode("utf-8", "replace") if isinstance(command, bytes) else command
