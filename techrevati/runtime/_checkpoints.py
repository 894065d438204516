"""Checkpoint records, and what a saver must and may offer.

    put ──▶ Checkpoint ──get, list──▶ caller            every saver
    claim ──token──▶ work ──put_claimed──▶ Checkpoint   savers with keys

Of two sessions that claim one key, one gets a fencing token, the other waits for the result.
A holder that was too slow finds its token behind the current one, and its write is refused.

Source: M. Kleppmann, "How to do distributed locking", 2016 (fencing tokens).
"""

from __future__ import annotations

import builtins
import copy
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from techrevati.runtime.errors import TechrevatiError

KEY = "idempotency_key"  # where a turn's key stands in the metadata


def _new_id() -> str:
    """A fresh id, 32 hex characters; the first 16 grow with time, so indexes fill at one end."""
    return f"{time.time_ns():016x}{os.urandom(8).hex()}"


_ATOMS = frozenset({str, int, float, bool, type(None)})


def copied(value: Any) -> Any:
    """A deep copy, quick for JSON data and right for anything else."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        return {key: item if type(item) in _ATOMS else copied(item) for key, item in value.items()}
    if kind is list:
        return [item if type(item) in _ATOMS else copied(item) for item in value]
    return copy.deepcopy(value)


@dataclass(frozen=True)
class Checkpoint:
    """State of a thread at one moment; `state` and `metadata` are JSON data."""

    id: str
    thread_id: str
    created_at: str
    state: dict[str, Any]
    parent_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping of the six fields; state and metadata are copies."""
        return {
            "id": self.id,
            "thread_id": self.thread_id,
            "created_at": self.created_at,
            "state": copied(self.state),
            "parent_id": self.parent_id,
            "metadata": copied(self.metadata),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Checkpoint:
        """Rebuild from `to_dict`; missing or null state and metadata are empty.

        Raises:
            KeyError: id, thread_id or created_at is missing.
        """
        return cls(
            id=data["id"],
            thread_id=data["thread_id"],
            created_at=data["created_at"],
            state=dict(data.get("state") or {}),
            parent_id=data.get("parent_id"),
            metadata=dict(data.get("metadata") or {}),
        )


@runtime_checkable
class CheckpointSaver(Protocol):
    """Checkpoints by thread, in the order they were put."""

    def get(self, thread_id: str, checkpoint_id: str | None = None) -> Checkpoint | None: ...

    def put(
        self,
        thread_id: str,
        state: Mapping[str, Any],
        *,
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint: ...

    def list(self, thread_id: str, *, before: str | None = None, limit: int = 10) -> builtins.list[Checkpoint]: ...

    def delete(self, thread_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Granted:
    """The key is yours: write with this fencing token, which grows at each grant."""

    token: int


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else works on it, for `remaining` seconds at most."""

    remaining: float


@dataclass(frozen=True, slots=True)
class Done:
    """It has been done; here is the result."""

    checkpoint: Checkpoint


Claim = Granted | Held | Done


class StaleClaimError(TechrevatiError):
    """The key was claimed by somebody else meanwhile (`current` 0: nobody holds it)."""

    def __init__(self, thread_id: str, key: str, held: int, current: int) -> None:
        super().__init__(thread_id, key, held, current)
        self.thread_id, self.key, self.held, self.current = thread_id, key, held, current

    def __str__(self) -> str:
        where, current = f"key '{self.key}' of thread '{self.thread_id}'", self.current or "none"
        return f"{where}: token {self.held} is not the current one ({current})"


@runtime_checkable
class KeyedCheckpointSaver(CheckpointSaver, Protocol):
    """A saver that finds a checkpoint by its key, and lets one session at a time work on a key.

    Sessions use these methods when a saver has them.  The key of a checkpoint is its metadata's
    ``idempotency_key``; plain `put` records it too.
    """

    def find(self, thread_id: str, key: str) -> Checkpoint | None:
        """The newest checkpoint of `thread_id` with that key."""

    def claim(self, thread_id: str, key: str, *, owner: str, ttl: float) -> Claim:
        """Reserve the key for `ttl` seconds, unless it is done or held by another owner.

        The same owner may claim again; its former token is then stale.
        """

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
        """Store the result of the claimed work and end the claim.

        Raises:
            StaleClaimError: `token` is not the current one; nothing was stored.
        """

    def release(self, thread_id: str, key: str, *, token: int) -> None:
        """End the claim without a result; a stale token changes nothing."""
