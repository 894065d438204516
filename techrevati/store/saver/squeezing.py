"""Compressing what was put, behind the caller's back: what is big is sent as it is, and made small a moment later.

    put ──▶ Bigs (bounded) ──a moment later──zstd──▶ saver_squeeze ──▶ the same checkpoint, smaller

Nothing depends on it: what is not squeezed, because the process died or Redis was away, stays as it was put.
"""

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from techrevati.runtime.errors import TechrevatiError
from techrevati.store.aio import AsyncStore
from techrevati.store.calls import Call
from techrevati.store.saver.names import SaverKeys
from techrevati.store.sync import SyncStore

ROOM = 32 * 1024 * 1024
"""Bytes that may wait; who brings more has to wait itself, so nobody runs away from it."""
MOMENT, PATIENCE = 0.02, 0.5

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Big:
    """A body that was put as it is, in pieces of `size` bytes together."""

    keys: SaverKeys
    id: str
    plain: Sequence[bytes]
    size: int


class Desk(Protocol):
    """Who compresses."""

    def squeezed(self, big: Big) -> Call[bool] | None: ...


def _given_up(big: Big, error: TechrevatiError) -> None:
    logger.info("checkpoint %s of thread %r stays uncompressed: %s", big.id, big.keys.thread, error)


class _Worker:
    """The thread, and what it has to do; it does not know the saver, so it does not keep it alive."""

    def __init__(self, store: SyncStore, desk: Desk) -> None:
        self._store, self._desk, self._changed = store, desk, threading.Condition()
        self._bigs, self._waiting = deque[Big](), 0
        self._is_idle = self._is_hurried = self._is_over = False
        threading.Thread(target=self._run, name="squeezer", daemon=True).start()
        atexit.register(self.end, 2.0)

    def add(self, big: Big) -> bool:
        """Take a body; False if there is too much."""
        with self._changed:
            self._bigs.append(big)
            self._waiting += big.size
            if self._is_idle:
                self._changed.notify_all()
            return self._waiting <= ROOM

    def settle(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        with self._changed:
            self._is_hurried = True
            self._changed.notify_all()
            while self._bigs and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._is_hurried = False
            return not self._bigs

    def end(self, timeout: float) -> None:
        """Do what is left within `timeout` seconds, and no more."""
        self.settle(timeout)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        atexit.unregister(self.end)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._bigs and not self._is_over:
                    self._is_idle = True
                    self._changed.wait()
                if self._is_over:
                    return
                if self._is_idle and not self._is_hurried:
                    self._is_idle = False
                    self._changed.wait(MOMENT)
                big = self._bigs[0]
            self._squeeze(big)
            with self._changed:
                self._bigs.popleft()
                self._waiting -= big.size
                self._changed.notify_all()

    def _squeeze(self, big: Big) -> None:
        try:
            call = self._desk.squeezed(big)
            if call is not None:
                self._store.run(call, patience=PATIENCE)
        except TechrevatiError as error:
            _given_up(big, error)


class Squeezer:
    """What compresses for one saver in one process: safe for threads, knows forks, and ends with its saver."""

    def __init__(self, store: SyncStore, desk: Desk) -> None:
        self._store, self._desk, self._lock = store, desk, threading.Lock()
        self._worker: _Worker | None = None
        self._process = 0

    def add(self, big: Big) -> None:
        """Take a body; waits if too much waits already."""
        worker = self._mine()
        if worker is None:
            worker = self._started()
        if not worker.add(big):
            worker.settle(10.0)

    def settle(self, timeout: float) -> bool:
        """Wait until all that was taken is done; False if it was not within `timeout` seconds."""
        worker = self._mine()
        return worker is None or worker.settle(timeout)

    def close(self) -> None:
        """Do what is left, within two seconds, and end the thread."""
        worker, self._worker = self._mine(), None
        if worker is not None:
            worker.end(2.0)

    def _mine(self) -> _Worker | None:
        """Give the thread of this process: a fork has none yet."""
        return self._worker if self._process == os.getpid() else None

    def _started(self) -> _Worker:
        with self._lock:
            worker = self._mine()
            if worker is None:
                worker = self._worker = _Worker(self._store, self._desk)
                self._process = os.getpid()
                weakref.finalize(self, worker.end, 0.0).atexit = False
            return worker


class AsyncSqueezer:
    """The same for an event loop: a task while there is work, and zstd in a thread."""

    def __init__(self, store: AsyncStore, desk: Desk) -> None:
        self._store, self._desk = store, desk
        self._bigs, self._waiting = deque[Big](), 0
        self._task: asyncio.Task[None] | None = None

    async def add(self, big: Big) -> None:
        """Take a body; waits if too much waits already."""
        self._bigs.append(big)
        self._waiting += big.size
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
        if self._waiting > ROOM:
            await self.settle(10.0)

    async def settle(self, timeout: float) -> bool:
        """Wait until all that was taken is done; False if it was not within `timeout` seconds."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=timeout)
        return not self._bigs

    async def close(self) -> None:
        """Do what is left, within two seconds."""
        await self.settle(2.0)
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            await asyncio.sleep(MOMENT)
            while self._bigs:
                big = self._bigs[0]
                try:
                    call = await asyncio.to_thread(self._desk.squeezed, big)
                    if call is not None:
                        await self._store.run(call, patience=PATIENCE)
                except TechrevatiError as error:
                    _given_up(big, error)
                self._bigs.popleft()
                self._waiting -= big.size
        finally:
            self._task = None
