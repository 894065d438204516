"""What the store does with the rows of its tables, one transaction at a time.

    append ──▶ version checked ─▶ run, change, messages, thread

Everything here expects an open transaction, and waits for nothing else.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from techrevati.agent.threads.changeset import ThreadChangeSet
from techrevati.agent.threads.errors import HistoryGone, NoSuchVersion, ThreadExists, ThreadNotFound
from techrevati.agent.threads.ids import Clock
from techrevati.agent.threads.index import indexed
from techrevati.agent.threads.message import Message
from techrevati.agent.threads.queries import (
    MessagePage,
    MessageQuery,
    Page,
    PlacedMessage,
    RunQuery,
    ThreadListQuery,
    page_found,
)
from techrevati.agent.threads.runs import RunRecord, RunStatus
from techrevati.agent.threads.sqlite.tables import messages_asked, runs_asked, threads_asked
from techrevati.agent.threads.store import Loaded, Precondition, held_to
from techrevati.agent.threads.thread import Thread, ThreadLog, stored_whole

_change = msgspec.json.Decoder(ThreadChangeSet)
_message = msgspec.json.Decoder(Message)
_origin = msgspec.json.Decoder(Thread)
_run = msgspec.json.Decoder(RunRecord)


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class ThreadRows:
    """The threads of one connection."""

    def __init__(self, execute: Callable[..., sqlite3.Cursor], clock: Clock) -> None:
        self._sql, self._clock = execute, clock

    def load(self, thread_id: str) -> Loaded | None:
        row = self._sql("SELECT version FROM threads WHERE id = ?", (thread_id,)).fetchone()
        return None if row is None else Loaded(self._thread(thread_id, row[0]), row[0])

    def load_at(self, thread_id: str, version: int) -> Thread:
        newest, oldest = self._versions(thread_id)
        if version > newest:
            raise NoSuchVersion(thread_id, version, newest)
        if version < oldest:
            raise HistoryGone(thread_id, version, oldest)
        return self._thread(thread_id, version)

    def _versions(self, thread_id: str) -> tuple[int, int]:
        row = self._sql("SELECT version, origin_version FROM threads WHERE id = ?", (thread_id,)).fetchone()
        if row is None:
            raise ThreadNotFound(thread_id)
        return row[0], row[1]

    def _thread(self, thread_id: str, version: int) -> Thread:
        """Build a version: messages up to it, the last state stored whole, and the patches since."""
        (text, parent) = self._sql("SELECT origin, parent_thread_id FROM threads WHERE id = ?", (thread_id,)).fetchone()
        origin = _origin.decode(text)
        log = ThreadLog(origin)
        rows = self._sql(
            """SELECT at, body FROM changes WHERE thread_id = ?1 AND version <= ?2 AND version >= coalesce(
                (SELECT max(version) FROM changes WHERE thread_id = ?1 AND version <= ?2 AND whole), 0)
            ORDER BY version""",
            (thread_id, version),
        )
        for at, body in rows:
            log.add(_change.decode(body), at)
        messages = self._sql(
            "SELECT body FROM messages WHERE thread_id = ? AND version <= ? ORDER BY place", (thread_id, version)
        )
        built = log.thread()
        return replace(
            built,
            parent_thread_id=parent,  # it is set once, so it holds for every version
            messages=tuple(_message.decode(body) for (body,) in messages),
            metadata=replace(built.metadata, version=version),
        )

    def load_messages(self, thread_id: str, query: MessageQuery) -> MessagePage:
        self._versions(thread_id)
        rows = self._sql(*messages_asked(thread_id, query))
        return page_found([PlacedMessage(place, _message.decode(body)) for place, body in rows], query.limit)

    def message_count(self, thread_id: str) -> int:
        self._versions(thread_id)
        return self._count("messages", "thread_id = ?", [thread_id])

    def _count(self, table: str, where: str, values: list[Any]) -> int:
        return int(self._sql(f"SELECT count(*) FROM {table} WHERE {where}", values).fetchone()[0])

    def list_threads(self, query: ThreadListQuery) -> Page[str]:
        where, values = threads_asked(query)
        total = self._count("threads", where, values)
        rows = self._sql(
            f"SELECT id FROM threads WHERE {where} ORDER BY id LIMIT ? OFFSET ?", [*values, query.limit, query.offset]
        )
        return Page(tuple(name for (name,) in rows), total, query.offset + query.limit < total)

    def run(self, run_id: str) -> RunRecord | None:
        row = self._sql("SELECT body FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return None if row is None else _run.decode(row[0])

    def active_run(self, thread_id: str) -> RunRecord | None:
        row = self._sql(
            "SELECT body FROM runs WHERE thread_id = ? AND status <> ? ORDER BY created_at DESC, run_id DESC LIMIT 1",
            (thread_id, RunStatus.DONE),
        ).fetchone()
        return None if row is None else _run.decode(row[0])

    def list_runs(self, query: RunQuery) -> Page[RunRecord]:
        where, values = runs_asked(query)
        total = self._count("runs", where, values)
        rows = self._sql(
            f"SELECT body FROM runs WHERE {where} ORDER BY created_at, run_id LIMIT ? OFFSET ?",
            [*values, query.limit, query.offset],
        )
        return Page(tuple(_run.decode(body) for (body,) in rows), total, query.offset + query.limit < total)

    def create(self, thread: Thread) -> int:
        if self._sql("SELECT 1 FROM threads WHERE id = ?", (thread.id,)).fetchone():
            raise ThreadExists(thread.id)
        return self._store(replace(thread, metadata=replace(thread.metadata, version=0)), None)

    def save(self, thread: Thread) -> int:
        row = self._sql("SELECT version FROM threads WHERE id = ?", (thread.id,)).fetchone()
        return self._store(thread, None if row is None else row[0])

    def _store(self, thread: Thread, known: int | None) -> int:
        thread = stored_whole(thread, known, self._clock())
        self._forget(thread.id)
        version = thread.metadata.version
        self._sql(
            "INSERT INTO threads VALUES (?, ?, ?, ?, ?, ?)",
            (
                thread.id,
                version,
                thread.resource_id,
                thread.parent_thread_id,
                version,
                _text(replace(thread, messages=())),
            ),
        )
        self._add_messages(thread.id, version, thread.messages)
        return version

    def _add_messages(self, thread_id: str, version: int, messages: Sequence[Message]) -> None:
        (place,) = self._sql(
            "SELECT coalesce(max(place), -1) FROM messages WHERE thread_id = ?", (thread_id,)
        ).fetchone()
        for message in messages:
            row = (thread_id, place + 1, message.id, version, message.visibility, message.run_id, _text(message))
            place += self._sql("INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount

    def append(self, thread_id: str, change: ThreadChangeSet, precondition: Precondition) -> int:
        version, _ = self._versions(thread_id)
        held_to(precondition, thread_id, version)
        if change.is_empty:
            return version
        now = self._clock()
        self._index(thread_id, change, now)
        version += 1
        body = _text(replace(change, messages=()))
        whole = change.snapshot is not None
        self._sql("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", (thread_id, version, now, whole, body))
        self._add_messages(thread_id, version, change.messages)
        parent = None if change.run_meta is None else change.run_meta.parent_thread_id
        self._sql(
            "UPDATE threads SET version = ?, parent_thread_id = coalesce(parent_thread_id, ?) WHERE id = ?",
            (version, parent, thread_id),
        )
        return version

    def _index(self, thread_id: str, change: ThreadChangeSet, now_ms: int) -> None:
        run = indexed(self.run(change.run_id), thread_id, change, now_ms)
        if run is None:
            return
        facts = (run.parent_run_id, run.status, run.termination_code, run.origin, run.created_at, run.updated_at)
        self._sql(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (run.run_id, thread_id, *facts, _text(run)),
        )

    def delete(self, thread_id: str) -> None:
        self._forget(thread_id)
        self._sql("DELETE FROM runs WHERE thread_id = ?", (thread_id,))

    def _forget(self, thread_id: str) -> None:
        self._sql("DELETE FROM threads WHERE id = ?", (thread_id,))
        self._sql("DELETE FROM changes WHERE thread_id = ?", (thread_id,))
        self._sql("DELETE FROM messages WHERE thread_id = ?", (thread_id,))

    def load_deltas(self, thread_id: str, after_version: int) -> list[ThreadChangeSet]:
        _, oldest = self._versions(thread_id)
        if after_version < oldest:
            raise HistoryGone(thread_id, after_version, oldest)
        brought: dict[int, list[Message]] = {}
        for version, body in self._sql(
            "SELECT version, body FROM messages WHERE thread_id = ? AND version > ? ORDER BY place",
            (thread_id, after_version),
        ):
            brought.setdefault(version, []).append(_message.decode(body))
        rows = self._sql(
            "SELECT version, body FROM changes WHERE thread_id = ? AND version > ? ORDER BY version",
            (thread_id, after_version),
        )
        return [replace(_change.decode(body), messages=tuple(brought.get(version, ()))) for version, body in rows]
