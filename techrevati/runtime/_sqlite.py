"""One SQLite file, shared by threads: a connection, its lock, committed writes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BUSY = 30.0  # s to wait for another process's write


class Database:
    """A connection in WAL mode; every statement commits before it returns.

    `lock` is held around each use, so threads may share it.
    """

    def __init__(self, path: str | Path, schema: str) -> None:
        self.lock = threading.RLock()
        self._connection = sqlite3.connect(str(path), timeout=_BUSY, isolation_level=None, check_same_thread=False)
        self.execute = self._connection.execute  # autocommit: returns once the write is durable
        self.execute("PRAGMA journal_mode=WAL")
        self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Several statements, all or none, with other writers kept out."""
        with self.lock:
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.execute("ROLLBACK")
                raise
            self.execute("COMMIT")

    def close(self) -> None:
        """Close the connection; twice is fine."""
        with self.lock:
            self._connection.close()
