"""Sinks that keep events and usage in SQLite files.

emit, record ──commit──▶ file ──▶ replay, totals
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from techrevati.runtime._sqlite import Database
from techrevati.runtime._timestamp import iso_now
from techrevati.runtime.agent_events import AgentEvent
from techrevati.runtime.usage_tracking import UsageSnapshot

_PAGE = 500  # events read at a time, so that a replay of millions stays small

_EVENTS = """
CREATE TABLE IF NOT EXISTS agent_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    emitted_at TEXT NOT NULL,
    event TEXT NOT NULL,
    role TEXT,
    phase TEXT,
    payload TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_agent_events_emitted_at ON agent_events (emitted_at);
"""

_USAGE = """
CREATE TABLE IF NOT EXISTS usage_records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    recorded_at TEXT NOT NULL,
    model TEXT NOT NULL,
    cost_usd REAL NOT NULL,
    snapshot TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_usage_records_recorded_at ON usage_records (recorded_at);
"""


@dataclass
class SqliteEventSink:
    """Events in a file, in the order they were emitted.  Safe for threads."""

    path: str | Path

    def __post_init__(self) -> None:
        self._database = Database(self.path, _EVENTS)

    def emit(self, event: AgentEvent) -> None:
        """Write it, committed on return."""
        row = (event.emitted_at, event.event.value, event.role, event.phase, event.to_json())
        with self._database.lock:
            self._database.execute(
                "INSERT INTO agent_events (emitted_at, event, role, phase, payload) VALUES (?, ?, ?, ?, ?)",
                row,
            )

    def replay(self, *, limit: int | None = None) -> Iterator[AgentEvent]:
        """Events from the first on, at most `limit` of them."""
        left, last = limit, 0
        while left is None or left > 0:
            page = _PAGE if left is None else min(_PAGE, left)
            with self._database.lock:
                rows = self._database.execute(
                    "SELECT id, payload FROM agent_events WHERE id > ? ORDER BY id LIMIT ?", (last, page)
                ).fetchall()
            for _id, payload in rows:
                yield AgentEvent.from_json(payload)
            if len(rows) < page:
                return
            last = rows[-1][0]
            left = None if left is None else left - page

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass
class SqliteUsageSink:
    """Usage and cost per turn in a file.  Safe for threads."""

    path: str | Path

    def __post_init__(self) -> None:
        self._database = Database(self.path, _USAGE)

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        """Write it, committed on return."""
        row = (iso_now(), model, cost_usd, json.dumps(usage.to_dict()))
        with self._database.lock:
            self._database.execute(
                "INSERT INTO usage_records (recorded_at, model, cost_usd, snapshot) VALUES (?, ?, ?, ?)", row
            )

    def totals(self) -> dict[str, Any]:
        """``{"turns": int, "total_cost_usd": float}`` over the whole file."""
        with self._database.lock:
            turns, cost = self._database.execute(
                "SELECT COUNT(*), COALESCE(SUM(cost_usd), 0.0) FROM usage_records"
            ).fetchone()
        return {"turns": int(turns), "total_cost_usd": float(cost)}

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
