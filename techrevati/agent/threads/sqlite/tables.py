"""Threads as tables: the schema, and what a query of ours is in SQL.

threads   one row each: its version, and how it was last stored whole
changes   what each version added, without its messages; `whole` where it has the whole state
messages  in their places, with the version that brought them
runs      the index
"""

from collections.abc import Sequence
from typing import Any

from techrevati.agent.threads.queries import MessageQuery, Order, RunQuery, ThreadListQuery

SCHEMA = """
CREATE TABLE IF NOT EXISTS threads (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    resource_id TEXT,
    parent_thread_id TEXT,
    origin_version INTEGER NOT NULL,
    origin TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
    thread_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    at INTEGER NOT NULL,
    whole INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (thread_id, version)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS changes_whole ON changes (thread_id, version) WHERE whole;
CREATE TABLE IF NOT EXISTS messages (
    thread_id TEXT NOT NULL,
    place INTEGER NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    visibility TEXT NOT NULL,
    run_id TEXT,
    body TEXT NOT NULL,
    PRIMARY KEY (thread_id, place)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS messages_by_id ON messages (thread_id, id);
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY,
    thread_id TEXT NOT NULL,
    parent_run_id TEXT,
    status TEXT NOT NULL,
    termination_code TEXT,
    origin TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_by_age ON runs (created_at, run_id);
CREATE INDEX IF NOT EXISTS runs_by_thread ON runs (thread_id, created_at, run_id);
"""

Clause = tuple[str, list[Any]]
"""SQL, and the values of its question marks."""


def _where(conditions: Sequence[tuple[str, Any]]) -> Clause:
    known = [(condition, value) for condition, value in conditions if value is not None]
    text = " AND ".join(condition for condition, _ in known) or "1"
    return text, [value for _, value in known]


def messages_asked(thread_id: str, query: MessageQuery) -> Clause:
    """Give the SQL that finds a page's messages, and one more if there is one."""
    where, values = _where(
        [
            ("thread_id = ?", thread_id),
            ("place > ?", query.after),
            ("place < ?", query.before),
            ("visibility = ?", query.visibility),
            ("run_id = ?", query.run_id),
        ]
    )
    order = "DESC" if query.order is Order.DESC else "ASC"
    sql = f"SELECT place, body FROM messages WHERE {where} ORDER BY place {order} LIMIT ?"
    return sql, [*values, query.limit + 1]


def threads_asked(query: ThreadListQuery) -> Clause:
    """Give the condition on rows of `threads`."""
    return _where([("resource_id = ?", query.resource_id), ("parent_thread_id = ?", query.parent_thread_id)])


def runs_asked(query: RunQuery) -> Clause:
    """Give the condition on rows of `runs`."""
    return _where(
        [
            ("thread_id = ?", query.thread_id),
            ("parent_run_id = ?", query.parent_run_id),
            ("status = ?", query.status),
            ("termination_code = ?", query.termination_code),
            ("origin = ?", query.origin),
            ("created_at >= ?", query.created_at_from),
            ("created_at <= ?", query.created_at_to),
            ("updated_at >= ?", query.updated_at_from),
            ("updated_at <= ?", query.updated_at_to),
        ]
    )
