"""Checkpoints in one SQLite file.

Put order is (created_at, rowid): a put never gets an earlier time than the thread's latest, even
when the clock went back, so the one index on thread and time serves "latest" and "before", and no
third index slows each put.
"""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from techrevati.runtime._checkpoints import (
    KEY,
    Checkpoint,
    Claim,
    Done,
    Granted,
    Held,
    StaleClaimError,
    _new_id,
    copied,
)
from techrevati.runtime._sqlite import Database
from techrevati.runtime._timestamp import iso_now

_SCHEMA = """
CREATE TABLE IF NOT EXISTS checkpoints (
    id TEXT PRIMARY KEY,
    thread_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    state_json TEXT NOT NULL,
    parent_id TEXT,
    metadata_json TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_checkpoints_thread_created ON checkpoints (thread_id, created_at DESC);
CREATE TABLE IF NOT EXISTS checkpoint_claims (
    token INTEGER PRIMARY KEY AUTOINCREMENT,
    thread_id TEXT NOT NULL,
    key TEXT NOT NULL,
    owner TEXT NOT NULL,
    expires_at REAL NOT NULL,
    UNIQUE (thread_id, key)
);
"""
# Rows of an older program have no `turn_key` (NULL) though their metadata may hold one; ours
# have '' for none.  The index leaves those out, so a put without a key does not pay for it.
_KEYS = """
CREATE INDEX IF NOT EXISTS idx_checkpoints_key ON checkpoints (thread_id, turn_key) WHERE turn_key IS NOT ''
"""
_COLUMNS = "id, thread_id, created_at, state_json, parent_id, metadata_json"
# Left to itself the planner would walk the thread by time: the whole thread, when a key is new.
_KEYED = "INDEXED BY idx_checkpoints_key WHERE thread_id = ? AND turn_key IS NOT '' AND turn_key"
_NEWEST_FIRST = "ORDER BY created_at DESC, rowid DESC"
_INSERT = f"INSERT INTO checkpoints ({_COLUMNS}, turn_key) VALUES (?, ?, ?, ?, ?, ?, ?)"
_REMEMBERED = 10_000  # threads whose latest time is kept at hand


class SqliteSaver:
    """Checkpoints that survive the process, shared by threads and by processes."""

    def __init__(self, path: str | Path) -> None:
        self._database = Database(path, _SCHEMA)
        self._clock: Callable[[], float] = time.time  # claims are compared between processes
        self._latest: dict[str, str] = {}  # thread -> created_at of its latest checkpoint
        with self._database.transaction():
            columns = {row[1] for row in self._database.execute("PRAGMA table_info(checkpoints)")}
            if "turn_key" not in columns:
                self._database.execute("ALTER TABLE checkpoints ADD COLUMN turn_key TEXT")
            self._database.execute(_KEYS)

    def get(self, thread_id: str, checkpoint_id: str | None = None) -> Checkpoint | None:
        """That checkpoint of the thread, or its latest."""
        if checkpoint_id is None:
            return self._one(f"WHERE thread_id = ? {_NEWEST_FIRST} LIMIT 1", thread_id)
        return self._one("WHERE id = ? AND thread_id = ?", checkpoint_id, thread_id)

    def put(
        self,
        thread_id: str,
        state: Mapping[str, Any],
        *,
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Store the state, committed on return.

        Raises:
            TypeError, ValueError: `state` or `metadata` is not JSON data.
        """
        state, known = dict(state), dict(metadata or {})
        state_json, metadata_json = json.dumps(state), json.dumps(known)
        key = known.get(KEY)
        with self._database.lock:
            created_at = max(iso_now(), self._latest_of(thread_id))
            record = Checkpoint(_new_id(), thread_id, created_at, copied(state), parent_id, copied(known))
            self._database.execute(
                _INSERT,
                (
                    record.id,
                    thread_id,
                    created_at,
                    state_json,
                    parent_id,
                    metadata_json,
                    key if isinstance(key, str) else "",
                ),
            )
            if len(self._latest) >= _REMEMBERED:
                self._latest.clear()
            self._latest[thread_id] = created_at
        return record

    def list(self, thread_id: str, *, before: str | None = None, limit: int = 10) -> builtins.list[Checkpoint]:
        """At most `limit` checkpoints, newest first, put before `before`."""
        if limit <= 0:
            return []
        if before is None:
            return self._select(f"WHERE thread_id = ? {_NEWEST_FIRST} LIMIT ?", thread_id, limit)
        return self._select(
            "WHERE thread_id = ?1 AND (created_at, rowid) <"
            " (SELECT created_at, rowid FROM checkpoints WHERE id = ?2 AND thread_id = ?1)"
            f" {_NEWEST_FIRST} LIMIT ?3",
            thread_id,
            before,
            limit,
        )

    def delete(self, thread_id: str) -> None:
        """Forget the thread."""
        with self._database.transaction():
            self._database.execute("DELETE FROM checkpoints WHERE thread_id = ?", (thread_id,))
            self._database.execute("DELETE FROM checkpoint_claims WHERE thread_id = ?", (thread_id,))

    def find(self, thread_id: str, key: str) -> Checkpoint | None:
        """The newest checkpoint with that key, rows of older programs included."""
        if not key:
            return None
        found = self._one(f"{_KEYED} = ? {_NEWEST_FIRST} LIMIT 1", thread_id, key)
        if found is not None:
            return found
        older = self._select(f"{_KEYED} IS NULL {_NEWEST_FIRST}", thread_id)
        return next((record for record in older if record.metadata.get(KEY) == key), None)

    def claim(self, thread_id: str, key: str, *, owner: str, ttl: float) -> Claim:
        """Reserve the key, unless it is done or held by another owner."""
        with self._database.transaction():
            done = self.find(thread_id, key)
            if done is not None:
                return Done(done)
            held, now = self._grant(thread_id, key), self._clock()
            if held is not None and held[1] != owner and held[2] > now:
                return Held(held[2] - now)
            cursor = self._database.execute(
                "INSERT OR REPLACE INTO checkpoint_claims (thread_id, key, owner, expires_at) VALUES (?, ?, ?, ?)",
                (thread_id, key, owner, now + ttl),
            )
            return Granted(int(cursor.lastrowid or 0))

    def put_claimed(
        self,
        thread_id: str,
        key: str,
        state: Mapping[str, Any],
        *,
        token: int,
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Store the result and end the claim, if `token` is still the current one."""
        with self._database.transaction():
            grant = self._grant(thread_id, key)
            if grant is None or grant[0] != token:
                raise StaleClaimError(thread_id, key, token, 0 if grant is None else grant[0])
            # Through `put`, so that a subclass sees every write.
            record = self.put(thread_id, state, parent_id=parent_id, metadata={**(metadata or {}), KEY: key})
            self._database.execute("DELETE FROM checkpoint_claims WHERE token = ?", (token,))
            return record

    def release(self, thread_id: str, key: str, *, token: int) -> None:
        """End the claim without a result."""
        with self._database.lock:
            self._database.execute(
                "DELETE FROM checkpoint_claims WHERE token = ? AND thread_id = ? AND key = ?",
                (token, thread_id, key),
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _latest_of(self, thread_id: str) -> str:
        known = self._latest.get(thread_id)
        if known is not None:
            return known
        row = self._database.execute(
            "SELECT created_at FROM checkpoints WHERE thread_id = ? ORDER BY created_at DESC LIMIT 1",
            (thread_id,),
        ).fetchone()
        return "" if row is None else str(row[0])

    def _grant(self, thread_id: str, key: str) -> tuple[int, str, float] | None:
        found: tuple[int, str, float] | None = self._database.execute(
            "SELECT token, owner, expires_at FROM checkpoint_claims WHERE thread_id = ? AND key = ?",
            (thread_id, key),
        ).fetchone()
        return found

    def _select(self, where: str, *values: Any) -> builtins.list[Checkpoint]:
        with self._database.lock:
            rows = self._database.execute(f"SELECT {_COLUMNS} FROM checkpoints {where}", values).fetchall()
        return [_checkpoint(row) for row in rows]

    def _one(self, where: str, *values: Any) -> Checkpoint | None:
        return next(iter(self._select(where, *values)), None)


def _checkpoint(row: tuple[Any, ...]) -> Checkpoint:
    record_id, thread_id, created_at, state, parent_id, metadata = row
    return Checkpoint(record_id, thread_id, created_at, json.loads(state), parent_id, json.loads(metadata))
