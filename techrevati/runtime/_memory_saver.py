"""Checkpoints in memory: for tests, and for programs that need no more."""

from __future__ import annotations

import builtins
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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
from techrevati.runtime._timestamp import iso_now


@dataclass(frozen=True, slots=True)
class _Grant:
    token: int
    owner: str
    expires_at: float  # s, monotonic


class InMemorySaver:
    """Checkpoints of this process.  Safe for threads; hands out copies only."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._clock: Callable[[], float] = time.monotonic
        self._threads: dict[str, builtins.list[Checkpoint]] = {}
        self._places: dict[tuple[str, str], int] = {}  # (thread, checkpoint id) -> place in its list
        self._keyed: dict[tuple[str, str], Checkpoint] = {}
        self._grants: dict[tuple[str, str], _Grant] = {}
        self._tokens = itertools.count(1)

    def get(self, thread_id: str, checkpoint_id: str | None = None) -> Checkpoint | None:
        """That checkpoint of the thread, or its latest."""
        with self._lock:
            line = self._threads.get(thread_id)
            if not line:
                return None
            place = -1 if checkpoint_id is None else self._places.get((thread_id, checkpoint_id))
            found = None if place is None else line[place]
        return _copy(found)

    def put(
        self,
        thread_id: str,
        state: Mapping[str, Any],
        *,
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Store a copy and return the record."""
        record = _record(thread_id, state, parent_id, metadata)
        with self._lock:
            self._append(record)
        return _copied(record)

    def list(self, thread_id: str, *, before: str | None = None, limit: int = 10) -> builtins.list[Checkpoint]:
        """At most `limit` checkpoints, newest first, put before `before`."""
        if limit <= 0:
            return []
        with self._lock:
            line = self._threads.get(thread_id, [])
            end = len(line) if before is None else self._places.get((thread_id, before), 0)
            found = line[max(0, end - limit) : end]
        return [_copied(record) for record in reversed(found)]

    def delete(self, thread_id: str) -> None:
        """Forget the thread."""
        with self._lock:
            for record in self._threads.pop(thread_id, []):
                self._places.pop((thread_id, record.id), None)
                self._keyed.pop((thread_id, record.metadata.get(KEY, "")), None)
            for held in [key for key in self._grants if key[0] == thread_id]:
                del self._grants[held]

    def find(self, thread_id: str, key: str) -> Checkpoint | None:
        """The newest checkpoint with that key."""
        with self._lock:
            found = self._keyed.get((thread_id, key))
        return _copy(found)

    def claim(self, thread_id: str, key: str, *, owner: str, ttl: float) -> Claim:
        """Reserve the key, unless it is done or held by another owner."""
        place = (thread_id, key)
        with self._lock:
            done, grant, now = self._keyed.get(place), self._grants.get(place), self._clock()
            if done is None:
                if grant is not None and grant.owner != owner and grant.expires_at > now:
                    return Held(grant.expires_at - now)
                grant = self._grants[place] = _Grant(next(self._tokens), owner, now + ttl)
                return Granted(grant.token)
        return Done(_copied(done))

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
        with self._lock:
            grant = self._grants.get((thread_id, key))
            if grant is None or grant.token != token:
                raise StaleClaimError(thread_id, key, token, 0 if grant is None else grant.token)
            # Through `put`, so that a subclass sees every write.
            record = self.put(thread_id, state, parent_id=parent_id, metadata={**(metadata or {}), KEY: key})
            del self._grants[thread_id, key]
        return record

    def release(self, thread_id: str, key: str, *, token: int) -> None:
        """End the claim without a result."""
        with self._lock:
            grant = self._grants.get((thread_id, key))
            if grant is not None and grant.token == token:
                del self._grants[thread_id, key]

    def _append(self, record: Checkpoint) -> None:
        line = self._threads.setdefault(record.thread_id, [])
        self._places[record.thread_id, record.id] = len(line)
        line.append(record)
        key = record.metadata.get(KEY)
        if isinstance(key, str) and key:
            self._keyed[record.thread_id, key] = record


def _record(
    thread_id: str, state: Mapping[str, Any], parent_id: str | None, metadata: Mapping[str, Any] | None
) -> Checkpoint:
    return Checkpoint(_new_id(), thread_id, iso_now(), copied(dict(state)), parent_id, copied(dict(metadata or {})))


def _copied(record: Checkpoint) -> Checkpoint:
    return replace(record, state=copied(record.state), metadata=copied(record.metadata))


def _copy(record: Checkpoint | None) -> Checkpoint | None:
    return None if record is None else _copied(record)
