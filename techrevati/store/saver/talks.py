"""What a saver says to Redis, from the first word to the last; see `techrevati.store.talk`.

get ──▶ saver_get ──▶ records ──(bodies that are big: HMGET)──▶ Checkpoint
put ──▶ saver_put (─▶ WAIT, WAITAOF) ──another was faster: whole──▶ Checkpoint ─▶ squeezed, later
"""

import builtins
from collections.abc import Mapping
from typing import Any

from techrevati.runtime.checkpoint import Checkpoint, Claim, Done, Granted, Held
from techrevati.store import durability as safety
from techrevati.store.calls import Call
from techrevati.store.durability import Durability, Wait
from techrevati.store.saver import calls
from techrevati.store.saver.calls import Chain, NotTheLast
from techrevati.store.saver.desk import FORGOTTEN_MS, KEY, Desk
from techrevati.store.saver.names import SaverKeys
from techrevati.store.saver.squeezing import Big
from techrevati.store.sealing import SealBroken
from techrevati.store.talk import Behind, Talk

PAGE = 32
LOOKS = 5  # a checkpoint may go, or become smaller, between its record and its body


class Talks:
    """A saver's conversations; safe for threads."""

    def __init__(self, desk: Desk, durability: Durability, wait_ms: int, replicas: int | None) -> None:
        self.desk = desk
        self._durability, self._wait_ms, self._replicas = durability, wait_ms, replicas
        self._wait: Wait | None = None
        self._is_open = durability is Durability.MEMORY

    def open(self) -> Talk[None]:
        """Ask the server whether it can give the durability."""
        if not self._is_open:
            server = yield from safety.look()
            self._wait = safety.plan(server, self._durability, timeout_ms=self._wait_ms, replicas=self._replicas)
            self._is_open = True

    def get(self, thread_id: str, by: str, value: str) -> Talk[Checkpoint | None]:
        """Read a thread's "last" checkpoint, or one by "id" or "key"."""
        keys = self.desk.keys(thread_id)
        have = self.desk.remembered(keys)
        chain = yield from _chain(keys, calls.get(keys, by, value, have.id if have else ""))
        return None if chain is None else self.desk.read(keys, chain, have, last=by == "last")

    def list(self, thread_id: str, before: str | None, limit: int) -> Talk[builtins.list[Checkpoint]]:
        """Read at most `limit` checkpoints, newest first, put before `before`."""
        keys, found = self.desk.keys(thread_id), builtins.list[Checkpoint]()
        while len(found) < limit:
            page = yield from _chain(keys, calls.page(keys, before or "", min(PAGE, limit - len(found))))
            if page is None:
                break
            found += self.desk.read_page(keys, page)
            before = found[-1].id
        return found

    def put(
        self,
        thread_id: str,
        state: Mapping[str, Any],
        parent_id: str | None,
        metadata: Mapping[str, Any] | None,
        token: int | None = None,
    ) -> Talk[tuple[Checkpoint, Big | None]]:
        """Write a checkpoint; gives it, and what may be compressed now."""
        draft = self.desk.draft(thread_id, state, parent_id, metadata, token)
        if not self._is_open:
            yield from self.open()
        put, confirmed = self.desk.put(draft), None
        while True:
            try:
                if self._wait is None:
                    number: int = yield put.call
                else:
                    number, confirmed = yield Behind(put.call, self._wait.command)
                break
            except NotTheLast:  # another process put one meanwhile
                put = self.desk.put(draft, whole=True)
        self.desk.written(draft.keys, put.view, number)
        if self._wait is not None:
            self._wait.check(f"checkpoint {draft.record.id} of thread {thread_id!r}", confirmed)
        return draft.record, put.big

    def put_claimed(
        self,
        thread_id: str,
        key: str,
        state: Mapping[str, Any],
        parent_id: str | None,
        metadata: Mapping[str, Any] | None,
        token: int,
    ) -> Talk[tuple[Checkpoint, Big | None]]:
        """Write the result of claimed work, and end the claim."""
        return self.put(thread_id, state, parent_id, {**(metadata or {}), KEY: key}, token)

    def delete(self, thread_id: str) -> Talk[None]:
        keys = self.desk.keys(thread_id)
        yield calls.delete(keys, FORGOTTEN_MS)
        self.desk.forget(keys)

    def claim(self, thread_id: str, key: str, owner: str, ttl: float) -> Talk[Claim]:
        """Reserve a key, unless it is done or held by another owner."""
        if not ttl > 0:
            raise ValueError(f"a claim's ttl {ttl} s: it has to be more than zero")
        keys = self.desk.keys(thread_id)
        said = yield from _chain(keys, calls.claim(keys, key, owner, round(ttl * 1e6), self.desk.ttl_ms))
        if isinstance(said, Chain):
            return Done(self.desk.read(keys, said, None))
        return Granted(said) if isinstance(said, int) else Held(said)

    def release(self, thread_id: str, key: str, token: int) -> Talk[None]:
        yield calls.release(self.desk.keys(thread_id), key, token)


def _chain(keys: SaverKeys, call: Call[Any]) -> Talk[Any]:
    """Read records with their bodies, or what else the call answers."""
    for _ in range(LOOKS):
        chain = yield call
        wanted = chain.missing(keys) if isinstance(chain, Chain) else None
        if wanted is None:
            return chain
        bodies = yield wanted
        if all(bodies):
            return chain.with_bodies(bodies)
    raise SealBroken("a checkpoint has no body")
