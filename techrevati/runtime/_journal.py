"""What a thread has done already: results recorded once under a key, and found again.

    open ──▶ recorded: return it │ claimed: do the work, then store │ held: wait, ask again

Savers with keys are asked by key and let one session at a time work on it.  A plain saver is
read newest first, and each session remembers what it has read, so history is read once.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, assert_never

from techrevati.runtime._checkpoints import (
    KEY,
    Checkpoint,
    CheckpointSaver,
    Done,
    Granted,
    Held,
    KeyedCheckpointSaver,
    StaleClaimError,
)
from techrevati.runtime._log import logger
from techrevati.runtime._usage import UsageSnapshot

_PAGE = 100
_LOOK_AGAIN = 0.02  # s between two looks at a key that somebody holds


@dataclass(frozen=True, slots=True)
class Recorded:
    """A result as it was stored: in its JSON form."""

    result: Any
    usage: UsageSnapshot

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Recorded:
        """Read a checkpoint that a session wrote; missing usage is zero."""
        state = checkpoint.state
        return cls(state.get("result"), UsageSnapshot.from_dict(state.get("usage") or {}))


class Journal:
    """The recorded results of one thread in one saver, as one session sees them."""

    __slots__ = ("_keyed", "_read_up_to", "_seen", "owner", "saver", "thread_id", "ttl")

    def __init__(self, saver: CheckpointSaver, thread_id: str, owner: str, ttl: float) -> None:
        self.saver, self.thread_id, self.owner, self.ttl = saver, thread_id, owner, ttl
        self._keyed = saver if isinstance(saver, KeyedCheckpointSaver) else None
        self._seen: dict[str, str] = {}  # key -> id of its newest checkpoint
        self._read_up_to: str | None = None

    def entry(self, key: str | None) -> Entry:
        """Where one piece of work is recorded."""
        return Entry(self, self._keyed, key or "")

    def find(self, key: str) -> Checkpoint | None:
        """The newest checkpoint with that key, for a saver that cannot look it up."""
        fresh = self._read_new(key)
        if fresh is not None:
            return fresh
        known = self._seen.get(key)
        return None if known is None else self.saver.get(self.thread_id, known)

    def _read_new(self, key: str) -> Checkpoint | None:
        """Read what was put since the last look; the newest of it with `key`."""
        found: Checkpoint | None = None
        newest: str | None = None
        fresh: dict[str, str] = {}
        before: str | None = None
        while True:
            page = self.saver.list(self.thread_id, before=before, limit=_PAGE)
            for checkpoint in page:
                if checkpoint.id == self._read_up_to:
                    page = []
                    break
                newest = newest or checkpoint.id
                name = checkpoint.metadata.get(KEY)
                if isinstance(name, str) and name not in fresh:
                    fresh[name] = checkpoint.id
                    if name == key:
                        found = checkpoint
            if len(page) < _PAGE or page[-1].id == before:  # the same page: `before` is ignored
                break
            before = page[-1].id
        self._seen.update(fresh)
        self._read_up_to = newest or self._read_up_to
        return found


class Entry:
    """One piece of work: found recorded, or done now and stored."""

    __slots__ = ("_journal", "_keyed", "_token", "key", "recorded")

    def __init__(self, journal: Journal, keyed: KeyedCheckpointSaver | None, key: str) -> None:
        self._journal, self._keyed, self.key = journal, keyed, key
        self._token: int | None = None
        self.recorded: Recorded | None = None

    def wait(self) -> None:
        """Find it recorded, or reserve it, blocking while another session holds it."""
        while pause := self.open():
            time.sleep(pause)

    async def await_open(self) -> None:
        """`wait`, letting other tasks run."""
        while pause := self.open():  # noqa: ASYNC110 - the holder may be another process
            await asyncio.sleep(pause)

    def open(self) -> float:
        """Find it recorded, or reserve it; returns seconds to wait before asking again, or 0.0."""
        if not self.key:
            return 0.0
        journal = self._journal
        if self._keyed is None:
            found = journal.find(self.key)
            self.recorded = None if found is None else Recorded.of(found)
            return 0.0
        claim = self._keyed.claim(journal.thread_id, self.key, owner=journal.owner, ttl=journal.ttl)
        match claim:
            case Done(checkpoint):
                self.recorded = Recorded.of(checkpoint)
            case Granted(token):
                self._token = token
            case Held(remaining):
                return max(0.001, min(_LOOK_AGAIN, remaining))
            case _:
                assert_never(claim)
        return 0.0

    def store(self, result: Any, usage: UsageSnapshot, status: str, model: str) -> None:
        """Record the result, if it survives JSON.

        When another session took the key over meanwhile, `recorded` is its result afterwards: all
        callers of one key get the same answer.
        """
        try:
            normal = json.loads(json.dumps(result))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            logger.warning("turn result is not JSON-serializable, no checkpoint is written: %s", error)
            self.abandon()
            return
        journal = self._journal
        state = {"result": normal, "usage": usage.to_dict()}
        metadata = {"status": status, "model": model}
        if self.key:
            metadata[KEY] = self.key
        token, self._token = self._token, None
        if token is None or self._keyed is None:
            journal.saver.put(journal.thread_id, state, metadata=metadata)
            return
        try:
            self._keyed.put_claimed(journal.thread_id, self.key, state, token=token, metadata=metadata)
        except StaleClaimError as error:
            logger.warning("claim_lost: %s", error)
            theirs = self._keyed.find(journal.thread_id, self.key)
            self.recorded = None if theirs is None else Recorded.of(theirs)
        except BaseException:
            self._token = token
            raise

    def abandon(self) -> None:
        """Give the key back without a result."""
        token, self._token = self._token, None
        if token is None or self._keyed is None:
            return
        try:
            self._keyed.release(self._journal.thread_id, self.key, token=token)
        except Exception:  # noqa: BLE001 - what stopped the work matters more
            logger.exception("saver.release raised; key '%s' is held until its claim expires", self.key)
