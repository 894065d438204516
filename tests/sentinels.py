"""A master, a replica and sentinels that watch them, as real processes; killing the master is part of the bargain.

Watched ── EmbeddedRedis (master) ◀── EmbeddedRedis (replica)
   └── redis-server --sentinel × n, down after 300 ms
"""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.exceptions import RedisError

from techrevati.store.embedded import EmbeddedRedis, find_server

NAME = "watched"
DOWN_AFTER_MS = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(done: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)


class Watched:
    """Two servers under Sentinel; `password` is theirs, `sentinel_password` the sentinels'."""

    def __init__(
        self, *, sentinels: int = 1, executable: str | None = None, password: str = "", sentinel_password: str = ""
    ) -> None:
        self._executable = executable or find_server()
        self._password, self._sentinel_password = password, sentinel_password
        options = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
        ports = [free_port(), free_port()]
        self.servers = [EmbeddedRedis(executable=executable, port=port, options=options) for port in ports]
        self.ports = [free_port() for _ in range(sentinels)]
        self._home = Path(tempfile.mkdtemp(prefix="techrevati-sentinel-"))
        self._watching: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        user = f":{self._password}@" if self._password else ""
        said = f"&sentinel_password={self._sentinel_password}" if self._sentinel_password else ""
        nodes = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"sentinel://{user}{nodes}/0?master_name={NAME}{said}"

    def server(self, port: int) -> EmbeddedRedis:
        return next(server for server in self.servers if server.port == port)

    def master(self) -> int:
        """Give the port of whom every sentinel takes for the master."""
        found = set[int]()
        for port in self.ports:
            with self._sentinel(port) as sentinel:
                found.add(int(sentinel.sentinel_get_master_addr_by_name(NAME)[1]))
        return found.pop() if len(found) == 1 else 0

    def kill_master(self) -> int:
        """kill -9; give the port of the dead."""
        port = self.master()
        self.server(port).stop(sig=signal.SIGKILL)
        return port

    def wait_promoted(self, dead: int) -> float:
        """Wait until the other is the master, and says so itself; give the seconds that took."""
        begun, (alive,) = time.monotonic(), [server for server in self.servers if server.port != dead]

        def leads() -> bool:
            try:
                with self._client(alive) as client:
                    return str(client.info("replication")["role"]) == "master"
            except RedisError:  # who is promoted closes its connections
                return False

        until(leads, "the replica is promoted", 30)
        until(lambda: self.master() == alive.port, "every sentinel knows it")
        return time.monotonic() - begun

    def start(self) -> Self:
        master, replica = (server.start() for server in self.servers)
        if self._password:
            for server in self.servers:
                with redis.Redis.from_url(server.url) as client:
                    client.config_set("masterauth", self._password)
                    client.config_set("requirepass", self._password)
        with self._client(replica) as client:
            client.replicaof("127.0.0.1", master.port)
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica is in step")
        for number, port in enumerate(self.ports):
            config = self._home / f"{number}.conf"
            lines = [
                f"port {port}",
                "bind 127.0.0.1",
                f"dir {self._home}",
                f"logfile {self._home}/{number}.log",
                f"sentinel monitor {NAME} 127.0.0.1 {master.port} {len(self.ports) // 2 + 1}",
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {NAME} 2000",
            ]
            if self._password:
                lines.append(f"sentinel auth-pass {NAME} {self._password}")
            if self._sentinel_password:
                lines.append(f"requirepass {self._sentinel_password}")
            config.write_text("\n".join(lines) + "\n")
            command = [self._executable, str(config), "--sentinel"]
            self._watching.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
        until(self.is_whole, "the sentinels see replica and colleagues", 30)
        return self

    def is_whole(self) -> bool:
        """Whether every sentinel sees a master, its replica in step, and its colleagues."""
        return all(map(self._sees_all, self.ports))

    def _sees_all(self, port: int) -> bool:
        try:
            with self._sentinel(port) as sentinel:
                state = sentinel.sentinel_masters()[NAME]
                replicas = sentinel.sentinel_slaves(NAME)
        except RedisError:
            return False
        seen = state["num-other-sentinels"] == len(self.ports) - 1 and state["is_master"] and not state["is_sdown"]
        return bool(seen and len(replicas) == 1 and replicas[0]["master-link-status"] == "ok")

    def _sentinel(self, port: int) -> redis.Redis:
        return redis.Redis("127.0.0.1", port, password=self._sentinel_password or None, decode_responses=True)

    def _client(self, server: EmbeddedRedis) -> redis.Redis:
        return redis.Redis.from_url(server.url, password=self._password or None, decode_responses=True)

    def close(self) -> None:
        for process in self._watching:
            process.kill()
            process.wait()
        for server in self.servers:
            server.close()
        shutil.rmtree(self._home, ignore_errors=True)

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
