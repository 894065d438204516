"""The store: the rows, in transactions, off the event loop."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from techrevati.agent.threads.changeset import ThreadChangeSet
from techrevati.agent.threads.errors import NotReadable, StoreIo
from techrevati.agent.threads.ids import Clock, checked_id, unix_ms
from techrevati.agent.threads.queries import (
    FIRST_MESSAGES,
    FIRST_RUNS,
    FIRST_THREADS,
    MessagePage,
    MessageQuery,
    Page,
    RunQuery,
    ThreadListQuery,
)
from techrevati.agent.threads.runs import RunRecord
from techrevati.agent.threads.sqlite.rows import ThreadRows
from techrevati.agent.threads.sqlite.tables import SCHEMA
from techrevati.agent.threads.store import Loaded, Precondition, ThreadHistory, ThreadStore, ThreadSync
from techrevati.agent.threads.thread import Thread
from techrevati.runtime._sqlite import Database

T = TypeVar("T")


class SqliteThreadStore(ThreadStore, ThreadSync, ThreadHistory):
    """Safe for threads, tasks and processes; each call works in a thread of its own, off the loop."""

    def __init__(self, path: str | Path, *, clock: Clock = unix_ms) -> None:
        """Open the file, making it if there is none.

        Raises:
            StoreIo: it cannot be opened, or is no such file.
        """
        self._path = str(path)
        with _translated(f"opening {self._path}"):
            self._database = Database(path, SCHEMA)
        self._rows = ThreadRows(self._database.execute, clock)

    def close(self) -> None:
        """Close the file; twice is fine."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _write(self, what: str, act: Callable[..., T], *args: Any) -> T:
        def whole() -> T:
            with _translated(f"{what} in {self._path}"), self._database.transaction():
                return act(*args)

        return await asyncio.to_thread(whole)

    async def _read(self, what: str, act: Callable[..., T], *args: Any) -> T:
        def whole() -> T:
            with _translated(f"{what} in {self._path}"), self._view():
                return act(*args)

        return await asyncio.to_thread(whole)

    @contextmanager
    def _view(self) -> Iterator[None]:
        """Read one state of the file, and keep no writer of another process waiting."""
        with self._database.lock:
            self._database.execute("BEGIN")
            try:
                yield
            finally:
                self._database.execute("ROLLBACK")

    async def load(self, thread_id: str) -> Loaded | None:
        return await self._read(f"loading thread {thread_id!r}", self._rows.load, thread_id)

    async def load_at(self, thread_id: str, version: int) -> Thread:
        return await self._read(f"loading thread {thread_id!r}", self._rows.load_at, thread_id, version)

    async def load_messages(self, thread_id: str, query: MessageQuery = FIRST_MESSAGES) -> MessagePage:
        return await self._read(f"reading thread {thread_id!r}", self._rows.load_messages, thread_id, query)

    async def message_count(self, thread_id: str) -> int:
        return await self._read(f"reading thread {thread_id!r}", self._rows.message_count, thread_id)

    async def list_threads(self, query: ThreadListQuery = FIRST_THREADS) -> Page[str]:
        return await self._read("listing threads", self._rows.list_threads, query)

    async def load_run(self, run_id: str) -> RunRecord | None:
        return await self._read(f"loading run {run_id!r}", self._rows.run, run_id)

    async def active_run_for_thread(self, thread_id: str) -> RunRecord | None:
        return await self._read(f"reading thread {thread_id!r}", self._rows.active_run, thread_id)

    async def list_runs(self, query: RunQuery = FIRST_RUNS) -> Page[RunRecord]:
        return await self._read("listing runs", self._rows.list_runs, query)

    async def create(self, thread: Thread) -> int:
        checked_id(thread.id)
        return await self._write(f"creating thread {thread.id!r}", self._rows.create, thread)

    async def save(self, thread: Thread) -> int:
        checked_id(thread.id)
        return await self._write(f"saving thread {thread.id!r}", self._rows.save, thread)

    async def append(self, thread_id: str, change: ThreadChangeSet, precondition: Precondition) -> int:
        return await self._write(f"writing thread {thread_id!r}", self._rows.append, thread_id, change, precondition)

    async def delete(self, thread_id: str) -> None:
        await self._write(f"deleting thread {thread_id!r}", self._rows.delete, thread_id)

    async def load_deltas(self, thread_id: str, after_version: int) -> Sequence[ThreadChangeSet]:
        return await self._read(f"reading thread {thread_id!r}", self._rows.load_deltas, thread_id, after_version)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Say what SQLite and the decoder raise in this project's words."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreIo(what, str(error)) from error
    except msgspec.DecodeError as error:
        raise NotReadable(what, str(error)) from error
