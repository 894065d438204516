"""A private RabbitMQ: one node, its own directory, ports and port mapper."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)
"""Where the real script lies behind a wrapper that wants to change the user."""


def find_rabbit() -> str | None:
    found = shutil.which("rabbitmq-server")
    return next((server for server in SERVERS if found and Path(server).exists()), found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PrivateRabbit:
    """One broker process, gone with this object."""

    def __init__(self, home: Path, server: str) -> None:
        self.home, self.server, self.port = home, server, free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def log(self) -> str:
        path = self.home / "rabbit.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        mapper = free_port()
        env = {
            **os.environ,
            "HOME": str(self.home),
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.home / "data"),
            "RABBITMQ_LOG_BASE": str(self.home / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self.home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.home / "none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        self._spawn([shutil.which("epmd") or "epmd", "-address", "127.0.0.1", "-port", str(mapper)], env, "epmd.log")
        self._spawn([self.server], env, "rabbit.log")
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self._processes[-1].poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise AssertionError(f"RabbitMQ did not start:\n{self.log()[-3000:]}") from None
                time.sleep(0.1)

    def _spawn(self, command: list[str], env: dict[str, str], log: str) -> None:
        with (self.home / log).open("w") as out:
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def close(self) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        self._processes.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
