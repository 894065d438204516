"""Checkpoints on Redis, shared by every process of a fleet.

    put ──▶ saver_put (─▶ WAIT, WAITAOF) ──▶ Checkpoint ──get, list, find──▶ any process
    claim ──token──▶ work ──put_claimed──▶ Checkpoint

Equal to the savers of one process; both shells say the same calls and differ by an await.
"""

import builtins
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from techrevati.runtime.checkpoint import Checkpoint, Claim, Done, Granted, Held
from techrevati.store import durability as safety
from techrevati.store.aio import AsyncStore
from techrevati.store.durability import Durability, Wait
from techrevati.store.saver import calls
from techrevati.store.saver.calls import NotTheLast
from techrevati.store.saver.desk import FORGOTTEN_MS, KEY, Desk, Draft
from techrevati.store.sealing import KeyRing
from techrevati.store.sync import SyncStore

TTL = 30 * 86_400.0
PAGE = 32
MAX_BYTES = 16 * 1024 * 1024
MEMORY = 64 * 1024 * 1024


def _lease_us(ttl: float) -> int:
    if not ttl > 0:
        raise ValueError(f"a claim's ttl {ttl} s: it has to be more than zero")
    return round(ttl * 1e6)


class RedisSaver:
    """Checkpoints of one tenant on Redis.  Safe for threads; see `KeyedCheckpointSaver` for the contract.

    `ttl` is how long (s) a thread is kept without use, `keep` how many of its checkpoints; None for ever, for all.
    `memory` bounds (bytes) what is remembered of threads to write deltas.  With a durability other than "memory"
    the server is asked what it can do on the first use, or by ``with``.

    Raises, from every method:
        StoreUnfit: the server cannot give the durability.
        StoreUnreachable: Redis did not answer.
    """

    def __init__(
        self,
        store: SyncStore | str,
        fleet: str,
        *,
        tenant: str = "default",
        ttl: float | None = TTL,
        keep: int | None = None,
        encryption: KeyRing | None = None,
        durability: str = "memory",
        wait_ms: int = 1000,
        replicas: int | None = None,
        max_bytes: int = MAX_BYTES,
        memory: int = MEMORY,
    ) -> None:
        self._store = SyncStore(store) if isinstance(store, str) else store
        self._owns_store = isinstance(store, str)
        self._desk = Desk(fleet, tenant, ttl=ttl, keep=keep, encryption=encryption, max_bytes=max_bytes, memory=memory)
        self._durability, self._wait_ms, self._replicas = Durability(durability), wait_ms, replicas
        self._wait: Wait | None = None
        self._is_open = self._durability is Durability.MEMORY

    def open(self) -> Self:
        """Ask the server whether it can give the durability.

        Raises:
            StoreUnfit: it cannot; says how it could.
        """
        if not self._is_open:
            server = safety.look(self._store)
            self._wait = safety.plan(server, self._durability, timeout_ms=self._wait_ms, replicas=self._replicas)
            self._is_open = True
        return self

    def get(self, thread_id: str, checkpoint_id: str | None = None) -> Checkpoint | None:
        """That checkpoint of the thread, or its latest."""
        if checkpoint_id is None:
            return self._get(thread_id, "last", "")
        return self._get(thread_id, "id", checkpoint_id)

    def put(
        self,
        thread_id: str,
        state: Mapping[str, Any],
        *,
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Store the state, as durable as the saver says on return.

        Raises:
            TypeError, ValueError: `state` or `metadata` is not JSON data.
            DurabilityUnknown: it is stored, and not yet safe.
        """
        return self._write(self._desk.draft(thread_id, state, parent_id, metadata))

    def list(self, thread_id: str, *, before: str | None = None, limit: int = 10) -> builtins.list[Checkpoint]:
        """At most `limit` checkpoints, newest first, put before `before`."""
        keys, found = self._desk.keys(thread_id), builtins.list[Checkpoint]()
        while len(found) < limit:
            page = self._store.run(calls.page(keys, before or "", min(PAGE, limit - len(found))))
            records = self._desk.read_page(keys, page)
            if not records:
                break
            found += records
            before = records[-1].id
        return found

    def delete(self, thread_id: str) -> None:
        """Forget the thread."""
        keys = self._desk.keys(thread_id)
        self._store.run(calls.delete(keys, FORGOTTEN_MS))
        self._desk.forget(keys)

    def find(self, thread_id: str, key: str) -> Checkpoint | None:
        """The newest checkpoint with that key."""
        return self._get(thread_id, "key", key) if key else None

    def claim(self, thread_id: str, key: str, *, owner: str, ttl: float) -> Claim:
        """Reserve the key for `ttl` seconds, unless it is done or held by another owner."""
        keys = self._desk.keys(thread_id)
        said = self._store.run(calls.claim(keys, key, owner, _lease_us(ttl), self._desk.ttl_ms))
        if isinstance(said, int):
            return Granted(said)
        if isinstance(said, float):
            return Held(said)
        done = self._desk.read(keys, said, None)
        assert done is not None
        return Done(done)

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
        """Store the result and end the claim, if `token` is still the current one.

        Raises:
            StaleClaimError: it is not; nothing was stored.
        """
        known = {**(metadata or {}), KEY: key}
        return self._write(self._desk.draft(thread_id, state, parent_id, known, token))

    def release(self, thread_id: str, key: str, *, token: int) -> None:
        """End the claim without a result; a stale token changes nothing."""
        self._store.run(calls.release(self._desk.keys(thread_id), key, token))

    def close(self) -> None:
        """Hang up, if the saver made its own connection."""
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> Self:
        try:
            return self.open()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, thread_id: str, by: str, value: str) -> Checkpoint | None:
        keys = self._desk.keys(thread_id)
        have = self._desk.remembered(keys)
        chain = self._store.run(calls.get(keys, by, value, have.id if have else ""))
        return self._desk.read(keys, chain, have, last=by == "last")

    def _write(self, draft: Draft) -> Checkpoint:
        self.open()
        call, view = self._desk.put(draft)
        confirmed: Any = None
        for _ in range(2):
            try:
                if self._wait is None:
                    number = self._store.run(call)
                else:
                    number, confirmed = self._store.run_then(call, self._wait.command)
                break
            except NotTheLast:  # another process put one meanwhile
                call, view = self._desk.put(draft, whole=True)
        self._desk.written(draft.keys, view, number)
        if self._wait is not None:
            self._wait.check(f"checkpoint {draft.record.id} of thread {draft.keys.thread!r}", confirmed)
        return draft.record


class AsyncRedisSaver:
    """Checkpoints of one tenant on Redis, for an event loop; see `RedisSaver`.

    A wait for durability holds up what else its store says: give it a store of its own then.
    """

    def __init__(
        self,
        store: AsyncStore | str,
        fleet: str,
        *,
        tenant: str = "default",
        ttl: float | None = TTL,
        keep: int | None = None,
        encryption: KeyRing | None = None,
        durability: str = "memory",
        wait_ms: int = 1000,
        replicas: int | None = None,
        max_bytes: int = MAX_BYTES,
        memory: int = MEMORY,
    ) -> None:
        self._store = AsyncStore(store) if isinstance(store, str) else store
        self._owns_store = isinstance(store, str)
        self._desk = Desk(fleet, tenant, ttl=ttl, keep=keep, encryption=encryption, max_bytes=max_bytes, memory=memory)
        self._durability, self._wait_ms, self._replicas = Durability(durability), wait_ms, replicas
        self._wait: Wait | None = None
        self._is_open = self._durability is Durability.MEMORY

    async def open(self) -> Self:
        """Ask the server whether it can give the durability; see `RedisSaver.open`."""
        if not self._is_open:
            server = await safety.alook(self._store)
            self._wait = safety.plan(server, self._durability, timeout_ms=self._wait_ms, replicas=self._replicas)
            self._is_open = True
        return self

    async def get(self, thread_id: str, checkpoint_id: str | None = None) -> Checkpoint | None:
        """That checkpoint of the thread, or its latest."""
        if checkpoint_id is None:
            return await self._get(thread_id, "last", "")
        return await self._get(thread_id, "id", checkpoint_id)

    async def put(
        self,
        thread_id: str,
        state: Mapping[str, Any],
        *,
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Store the state; see `RedisSaver.put`."""
        return await self._write(self._desk.draft(thread_id, state, parent_id, metadata))

    async def list(self, thread_id: str, *, before: str | None = None, limit: int = 10) -> builtins.list[Checkpoint]:
        """At most `limit` checkpoints, newest first, put before `before`."""
        keys, found = self._desk.keys(thread_id), builtins.list[Checkpoint]()
        while len(found) < limit:
            page = await self._store.run(calls.page(keys, before or "", min(PAGE, limit - len(found))))
            records = self._desk.read_page(keys, page)
            if not records:
                break
            found += records
            before = records[-1].id
        return found

    async def delete(self, thread_id: str) -> None:
        """Forget the thread."""
        keys = self._desk.keys(thread_id)
        await self._store.run(calls.delete(keys, FORGOTTEN_MS))
        self._desk.forget(keys)

    async def find(self, thread_id: str, key: str) -> Checkpoint | None:
        """The newest checkpoint with that key."""
        return await self._get(thread_id, "key", key) if key else None

    async def claim(self, thread_id: str, key: str, *, owner: str, ttl: float) -> Claim:
        """Reserve the key for `ttl` seconds, unless it is done or held by another owner."""
        keys = self._desk.keys(thread_id)
        said = await self._store.run(calls.claim(keys, key, owner, _lease_us(ttl), self._desk.ttl_ms))
        if isinstance(said, int):
            return Granted(said)
        if isinstance(said, float):
            return Held(said)
        done = self._desk.read(keys, said, None)
        assert done is not None
        return Done(done)

    async def put_claimed(
        self,
        thread_id: str,
        key: str,
        state: Mapping[str, Any],
        *,
        token: int,
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Store the result and end the claim, if `token` is still the current one; see `RedisSaver.put_claimed`."""
        known = {**(metadata or {}), KEY: key}
        return await self._write(self._desk.draft(thread_id, state, parent_id, known, token))

    async def release(self, thread_id: str, key: str, *, token: int) -> None:
        """End the claim without a result; a stale token changes nothing."""
        await self._store.run(calls.release(self._desk.keys(thread_id), key, token))

    async def close(self) -> None:
        """Hang up, if the saver made its own connection."""
        if self._owns_store:
            await self._store.close()

    async def __aenter__(self) -> Self:
        try:
            return await self.open()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _get(self, thread_id: str, by: str, value: str) -> Checkpoint | None:
        keys = self._desk.keys(thread_id)
        have = self._desk.remembered(keys)
        chain = await self._store.run(calls.get(keys, by, value, have.id if have else ""))
        return self._desk.read(keys, chain, have, last=by == "last")

    async def _write(self, draft: Draft) -> Checkpoint:
        await self.open()
        call, view = self._desk.put(draft)
        confirmed: Any = None
        for _ in range(2):
            try:
                if self._wait is None:
                    number = await self._store.run(call)
                else:
                    number, confirmed = await self._store.run_then(call, self._wait.command)
                break
            except NotTheLast:  # another process put one meanwhile
                call, view = self._desk.put(draft, whole=True)
        self._desk.written(draft.keys, view, number)
        if self._wait is not None:
            self._wait.check(f"checkpoint {draft.record.id} of thread {draft.keys.thread!r}", confirmed)
        return draft.record
