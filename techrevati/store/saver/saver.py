"""Checkpoints on Redis, shared by every process of a fleet.

    put ──▶ saver_put (─▶ WAIT, WAITAOF) ──▶ Checkpoint ──get, list, find──▶ any process
    claim ──token──▶ work ──put_claimed──▶ Checkpoint

Equal to the savers of one process; both shells hold the same conversations (`talks`) and differ by an await.
"""

import builtins
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from techrevati.runtime.checkpoint import Checkpoint, Claim
from techrevati.store.aio import AsyncStore
from techrevati.store.durability import Durability
from techrevati.store.saver.desk import SQUEEZE_FROM, Desk
from techrevati.store.saver.squeezing import AsyncSqueezer, Big, Squeezer
from techrevati.store.saver.talks import Talks
from techrevati.store.sealing import KeyRing
from techrevati.store.sync import SyncStore
from techrevati.store.talk import Talk, ahold, hold

TTL = 30 * 86_400.0
MAX_BYTES = 16 * 1024 * 1024
MEMORY = 64 * 1024 * 1024

S = TypeVar("S", SyncStore, AsyncStore)


class _Saver(Generic[S]):
    """What both savers are made of.

    `ttl` is how long (s) a thread is kept without use, `keep` how many of its checkpoints; None for ever, for all.
    `memory` bounds (bytes) what is remembered of threads to write deltas.  What is to be sent and has `squeeze_from`
    bytes is compressed after it was put, for to compress takes longer than to send it; a high figure compresses all
    before it is sent, which pays over a slow network.  With a durability other than "memory" the server is asked
    what it can do on the first use, or by ``with``.
    """

    _store_type: type[S]

    def __init__(
        self,
        store: S | str,
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
        squeeze_from: int = SQUEEZE_FROM,
    ) -> None:
        desk = Desk(
            fleet,
            tenant,
            ttl=ttl,
            keep=keep,
            encryption=encryption,
            max_bytes=max_bytes,
            memory=memory,
            squeeze_from=squeeze_from,
        )
        self._talks, self._desk = Talks(desk, Durability(durability), wait_ms, replicas), desk
        self._owns_store = isinstance(store, str)
        self._store: S = self._store_type(store) if isinstance(store, str) else store
        self._prepare()

    def _prepare(self) -> None:
        """Make what compresses."""
        raise NotImplementedError


class RedisSaver(_Saver[SyncStore]):
    """Checkpoints of one tenant on Redis.  Safe for threads; see `KeyedCheckpointSaver` for the contract.

    Raises, from every method:
        StoreUnfit: the server cannot give the durability.
        StoreUnreachable: Redis did not answer.
    """

    _store_type = SyncStore

    def _prepare(self) -> None:
        self._squeezer = Squeezer(self._store, self._desk)

    def open(self) -> Self:
        """Ask the server whether it can give the durability.

        Raises:
            StoreUnfit: it cannot; says how it could.
        """
        hold(self._store, self._talks.open())
        return self

    def get(self, thread_id: str, checkpoint_id: str | None = None) -> Checkpoint | None:
        """That checkpoint of the thread, or its latest."""
        by = "last" if checkpoint_id is None else "id"
        return hold(self._store, self._talks.get(thread_id, by, checkpoint_id or ""))

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
        return self._write(self._talks.put(thread_id, state, parent_id, metadata))

    def list(self, thread_id: str, *, before: str | None = None, limit: int = 10) -> builtins.list[Checkpoint]:
        """At most `limit` checkpoints, newest first, put before `before`."""
        return hold(self._store, self._talks.list(thread_id, before, limit))

    def delete(self, thread_id: str) -> None:
        """Forget the thread."""
        hold(self._store, self._talks.delete(thread_id))

    def find(self, thread_id: str, key: str) -> Checkpoint | None:
        """The newest checkpoint with that key."""
        return hold(self._store, self._talks.get(thread_id, "key", key)) if key else None

    def claim(self, thread_id: str, key: str, *, owner: str, ttl: float) -> Claim:
        """Reserve the key for `ttl` seconds, unless it is done or held by another owner."""
        return hold(self._store, self._talks.claim(thread_id, key, owner, ttl))

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
        return self._write(self._talks.put_claimed(thread_id, key, state, parent_id, metadata, token))

    def release(self, thread_id: str, key: str, *, token: int) -> None:
        """End the claim without a result; a stale token changes nothing."""
        hold(self._store, self._talks.release(thread_id, key, token))

    def settle(self, timeout: float = 10.0) -> bool:
        """Wait until what was put is compressed; False if it was not within `timeout` seconds."""
        return self._squeezer.settle(timeout)

    def close(self) -> None:
        """Hang up, if the saver made its own connection."""
        self._squeezer.close()
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

    def _write(self, talk: Talk[tuple[Checkpoint, Big | None]]) -> Checkpoint:
        record, big = hold(self._store, talk)
        if big is not None:
            self._squeezer.add(big)
        return record


class AsyncRedisSaver(_Saver[AsyncStore]):
    """Checkpoints of one tenant on Redis, for an event loop; see `RedisSaver`.

    A wait for durability holds up what else its store says: give it a store of its own then.
    """

    _store_type = AsyncStore

    def _prepare(self) -> None:
        self._squeezer = AsyncSqueezer(self._store, self._desk)

    async def open(self) -> Self:
        """Ask the server whether it can give the durability; see `RedisSaver.open`."""
        await ahold(self._store, self._talks.open())
        return self

    async def get(self, thread_id: str, checkpoint_id: str | None = None) -> Checkpoint | None:
        """That checkpoint of the thread, or its latest."""
        by = "last" if checkpoint_id is None else "id"
        return await ahold(self._store, self._talks.get(thread_id, by, checkpoint_id or ""))

    async def put(
        self,
        thread_id: str,
        state: Mapping[str, Any],
        *,
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Store the state; see `RedisSaver.put`."""
        return await self._write(self._talks.put(thread_id, state, parent_id, metadata))

    async def list(self, thread_id: str, *, before: str | None = None, limit: int = 10) -> builtins.list[Checkpoint]:
        """At most `limit` checkpoints, newest first, put before `before`."""
        return await ahold(self._store, self._talks.list(thread_id, before, limit))

    async def delete(self, thread_id: str) -> None:
        """Forget the thread."""
        await ahold(self._store, self._talks.delete(thread_id))

    async def find(self, thread_id: str, key: str) -> Checkpoint | None:
        """The newest checkpoint with that key."""
        return await ahold(self._store, self._talks.get(thread_id, "key", key)) if key else None

    async def claim(self, thread_id: str, key: str, *, owner: str, ttl: float) -> Claim:
        """Reserve the key for `ttl` seconds, unless it is done or held by another owner."""
        return await ahold(self._store, self._talks.claim(thread_id, key, owner, ttl))

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
        return await self._write(self._talks.put_claimed(thread_id, key, state, parent_id, metadata, token))

    async def release(self, thread_id: str, key: str, *, token: int) -> None:
        """End the claim without a result; a stale token changes nothing."""
        await ahold(self._store, self._talks.release(thread_id, key, token))

    async def settle(self, timeout: float = 10.0) -> bool:
        """Wait until what was put is compressed; False if it was not within `timeout` seconds."""
        return await self._squeezer.settle(timeout)

    async def close(self) -> None:
        """Hang up, if the saver made its own connection."""
        await self._squeezer.close()
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

    async def _write(self, talk: Talk[tuple[Checkpoint, Big | None]]) -> Checkpoint:
        record, big = await ahold(self._store, talk)
        if big is not None:
            await self._squeezer.add(big)
        return record
