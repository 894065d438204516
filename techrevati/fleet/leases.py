"""Leases of one process: renewed from their own thread and connection, lost on time.

    engine ──hold──▶ Leases ──every 5 s, a batch per partition──▶ run_renew ──lost? stop?──▶ engine

The thread has its own connection, so a busy event loop delays no renewal; but when the loop has been
silent for `loop_stall` seconds it stops renewing, so that somebody else can have the turns.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from techrevati.store import calls
from techrevati.store.errors import StoreError
from techrevati.store.keys import PartitionKeys
from techrevati.store.sync import SyncStore

log = logging.getLogger(__name__)

BATCH = 256


class Ending(StrEnum):
    """Why a running turn has to stop."""

    LOST = "lost"
    CANCELLED = "cancelled"
    DRAINED = "drained"
    TIMED_OUT = "timed out"


@dataclass(slots=True)
class Lease:
    """One turn's lease; `ends` is on this process's monotonic clock and never beyond what Redis granted."""

    run_id: str
    token: str
    keys: PartitionKeys
    ends: float
    stop: Callable[[Ending], None]
    """Called from the lease thread, at most once."""


class Leases:
    """Keeps the leases of one process."""

    def __init__(
        self,
        store: SyncStore,
        *,
        ttl: float,
        every: float,
        loop_stall: float,
        beat: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._ttl, self._every, self._stall = store, ttl, every, loop_stall
        self._beat, self._monotonic = beat, monotonic
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.loop_seen = monotonic()
        """When the event loop last showed life; the engine keeps it fresh."""

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, lease: Lease) -> None:
        with self._lock:
            self._held[lease.run_id] = lease

    def drop(self, lease: Lease) -> None:
        """Forget a lease: its turn has ended."""
        with self._lock:
            if self._held.get(lease.run_id) is lease:
                del self._held[lease.run_id]

    def tell(self, run_id: str, ending: Ending) -> None:
        """Stop the turn of a run, if this process has it."""
        with self._lock:
            lease = self._held.get(run_id)
        if lease is not None:
            lease.stop(ending)

    def held(self) -> list[Lease]:
        with self._lock:
            return list(self._held.values())

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="techrevati-leases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; leases still held run out by themselves."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5)

    def renew(self) -> None:
        """Renew what is held, once; stop what is lost, cancelled or out of time."""
        by_partition: dict[PartitionKeys, list[Lease]] = defaultdict(list)
        for lease in self.held():
            by_partition[lease.keys].append(lease)
        for keys, leases in by_partition.items():
            for start in range(0, len(leases), BATCH):
                self._renew_batch(keys, leases[start : start + BATCH])
        now = self._monotonic()
        for lease in self.held():
            if lease.ends <= now:
                lease.stop(Ending.LOST)

    def _renew_batch(self, keys: PartitionKeys, leases: list[Lease]) -> None:
        asked = self._monotonic()  # before the call: never work on time we may not have
        try:
            codes = self._store.run(
                calls.renew(keys, round(self._ttl * 1e6), [(one.run_id, one.token) for one in leases])
            )
        except StoreError as error:
            log.warning("leases not renewed (%d in partition %d): %s", len(leases), keys.partition, error)
            return
        for lease, code in zip(leases, codes, strict=True):
            if code == calls.LOST:
                lease.stop(Ending.LOST)
            else:
                lease.ends = asked + self._ttl
                if code == calls.STOPPING:
                    lease.stop(Ending.CANCELLED)

    def _run(self) -> None:
        tick = min(self._every, 1.0)
        renewed = self._monotonic()
        while not self._stopping:
            self._wake.wait(tick)
            if self._stopping:
                return
            now = self._monotonic()
            if now - self.loop_seen > self._stall:
                log.error("the event loop has been silent for %.0f s: leases are not renewed", now - self.loop_seen)
                continue
            try:
                self._beat()
                if now - renewed >= self._every:
                    renewed = now
                    self.renew()
                else:
                    for lease in self.held():
                        if lease.ends <= now:
                            lease.stop(Ending.LOST)
            except Exception:  # the one thread that must not die: it keeps every lease of the process
                log.exception("the lease thread met an error")
