"""Writing off the hot path: what is emitted is buffered, a thread of its own writes it in batches.

    add ──▶ buffer (bounded) ──every 0.1 s, or when a batch is full──▶ sink_write ──▶ Redis

What can be lost, and what cannot: a process that is killed loses what it buffered since the last write (`every`
seconds, or one batch under load).  While Redis is away the buffer grows to `room`; then the oldest entries are
dropped and counted.  What was written is there once: a batch that is sent again is known by its number.
"""

import atexit
import os
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial

from techrevati.runtime.errors import TechrevatiError
from techrevati.store.sinks import calls
from techrevati.store.sinks.calls import Entry, SinkKeys
from techrevati.store.sync import SyncStore

OnTrouble = Callable[[TechrevatiError], None]


class Writer:
    """The buffer of one sink in one process, and the thread that empties it.  Safe for threads; knows forks."""

    def __init__(
        self,
        store: SyncStore,
        keys: SinkKeys,
        *,
        most: int,
        ttl: float | None,
        window: float,
        every: float,
        room: int,
        on_trouble: OnTrouble | None,
    ) -> None:
        if most < 1 or room < 1 or window <= 0 or every <= 0 or (ttl is not None and ttl < 1):
            raise ValueError(
                f"most {most}, room {room}, window {window} s, every {every} s, ttl {ttl} s: "
                "all have to be more than zero, a ttl at least 1 s or None"
            )
        self._store, self.keys = store, keys
        self._most, self._window_us, self._every, self._room = most, round(window * 1e6), every, room
        self._ttl_ms = 0 if ttl is None else round(ttl * 1000)
        self._on_trouble = on_trouble
        self._begin()
        self._at_exit = partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)
        weakref.finalize(self, atexit.unregister, self._at_exit).atexit = False

    def _begin(self) -> None:
        self._process, self._name, self._batch = os.getpid(), uuid.uuid4().hex, 0
        self._buffer = deque[Entry]()
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self.dropped = self.written = 0
        """Entries that found no room, and entries that were new to Redis."""

    @property
    def waiting(self) -> int:
        return len(self._buffer)

    def add(self, entry: Entry) -> None:
        """Take an entry; never waits for Redis."""
        if os.getpid() != self._process:  # a fork: what the parent buffered, the parent writes
            self._begin()
        with self._lock:
            if self._is_closed:
                raise ValueError("the sink is closed")
            self._buffer.append(entry)
            while len(self._buffer) > self._room:
                self._buffer.popleft()
                self.dropped += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sink", daemon=True)
                self._thread.start()
            elif len(self._buffer) >= calls.BATCH_MAX:
                self._lock.notify_all()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was added is written; False if it was not within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while self._buffer:
                self._lock.notify_all()
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._lock.wait(min(left, 0.05))
        return True

    def close(self, timeout: float = 10.0) -> bool:
        """Write what is left, then take nothing more."""
        if os.getpid() != self._process or self._is_closed:
            return True
        done = self.flush(timeout)
        with self._lock:
            self._is_closed = True
            self._lock.notify_all()
        atexit.unregister(self._at_exit)
        return done

    def write_some(self) -> bool:
        """Write one batch; False if there was nothing, or Redis did not take it."""
        with self._lock:
            batch = [entry for entry, _ in zip(self._buffer, range(calls.BATCH_MAX), strict=False)]
            if not batch:
                return False
            self._batch += 1
        call = calls.write(
            self.keys,
            self._name,
            self._batch,
            batch,
            most=self._most,
            ttl_ms=self._ttl_ms,
            window_us=self._window_us,
        )
        while True:
            try:
                new = self._store.run(call)
                break
            except TechrevatiError as error:
                if self._on_trouble is not None:
                    self._on_trouble(error)
                if self._is_closed:
                    return False
                time.sleep(self._every)  # the same batch again: it may have been written
        with self._lock:
            self.written += new
            for entry in batch:  # dropped meanwhile, if there was no room
                if self._buffer and self._buffer[0] is entry:
                    self._buffer.popleft()
            self._lock.notify_all()
        return True

    def _run(self) -> None:
        """Write while there is something; a sink that is dropped lives until then, a quiet one has no thread."""
        while self._rest():
            while self.write_some():
                pass

    def _rest(self) -> bool:
        """Wait until there is a batch, or time is up; False if there is nothing to do: the next entry starts anew."""
        with self._lock:
            if not self._is_closed and 0 < len(self._buffer) < calls.BATCH_MAX:
                self._lock.wait(self._every)
            if self._buffer and not self._is_closed:
                return True
            self._thread = None
            return False


def _close(ref: "weakref.ref[Writer]") -> None:
    if (writer := ref()) is not None:
        writer.close(2.0)
