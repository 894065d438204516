"""Threads in one SQLite file: they survive the process, and several processes may share them."""

from techrevati.agent.threads.sqlite.store import SqliteThreadStore

__all__ = ["SqliteThreadStore"]
