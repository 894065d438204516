"""Real MCP servers: a program on stdio, and an HTTP server on loopback that can be killed and started again."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from techrevati.agent.behaviours.mcp.servers import HttpServer, StdioServer

SERVER = Path(__file__).with_name("server.py")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


@pytest.fixture
def stdio(notes: Path) -> StdioServer:
    return StdioServer(name="desk", command=sys.executable, args=(str(SERVER), "stdio"), env={"NOTES": str(notes)})


class WebServer:
    """The same server behind a port that stays its own."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> HttpServer:
        return HttpServer(name="desk", url=f"http://127.0.0.1:{self.port}/mcp")

    def start(self) -> None:
        log = self._notes.with_suffix(".log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, str(SERVER), "http", str(self.port)],
                env={**os.environ, "NOTES": str(self._notes)},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 0.2):
                    return
            except OSError:
                assert time.monotonic() < deadline, self._notes.with_suffix(".log").read_text("utf-8")
                assert self._process.poll() is None, self._notes.with_suffix(".log").read_text("utf-8")
                time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@pytest.fixture
def web(notes: Path) -> Iterator[WebServer]:
    server = WebServer(notes)
    server.start()
    yield server
    server.kill()
