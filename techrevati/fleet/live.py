"""Deltas of a running turn: gathered for a moment, sent in one call, never waited for."""

import asyncio
import logging

from techrevati.store import calls
from techrevati.store.aio import AsyncStore
from techrevati.store.errors import StoreError
from techrevati.store.keys import PartitionKeys

log = logging.getLogger(__name__)

CAP, TTL_MS, MOST = 1000, 600_000, 500


class Live:
    """The deltas of one turn, batched by `interval` seconds; more than `MOST` waiting are dropped, oldest first."""

    def __init__(self, store: AsyncStore, keys: PartitionKeys, run_id: str, token: str, interval: float) -> None:
        self._store, self._keys, self._run_id, self._token = store, keys, run_id, token
        self._interval = interval
        self._waiting: list[tuple[str, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None

    def add(self, kind: str, data: str) -> None:
        """Queue a delta; call it on the loop."""
        self._waiting.append((kind, data))
        del self._waiting[:-MOST]
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self.flush)

    def flush(self) -> None:
        """Send what waits, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            batch, self._waiting = self._waiting, []
            self._sending = asyncio.get_running_loop().create_task(self._send(batch))

    async def settle(self) -> None:
        """Send what waits ahead of whatever is sent next: behind the commit it would be refused."""
        self.flush()
        if self._sending is not None:
            await asyncio.sleep(0)  # the store keeps the order in which calls were begun

    async def _send(self, batch: list[tuple[str, str]]) -> None:
        try:
            await self._store.run(calls.live_append(self._keys, self._run_id, self._token, CAP, TTL_MS, batch))
        except StoreError as error:
            log.debug("%d deltas of run %s dropped: %s", len(batch), self._run_id, error)
