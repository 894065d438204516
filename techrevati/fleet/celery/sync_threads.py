"""A few daemon threads for plain functions.

Not `ThreadPoolExecutor`: the interpreter waits for its threads at exit, and a plain task that hangs
would keep a worker alive that was told to go.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger(__name__)


class SyncThreads:
    """Up to `limit` threads, started when work finds none idle, gone with the process."""

    def __init__(self, limit: int, *, name: str) -> None:
        self.limit, self.name = limit, name
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = self._busy = 0

    def submit(self, function: Callable[[], object]) -> None:
        with self._lock:
            self._busy += 1
            start = self._busy > self._started < self.limit
            number = self._started
            self._started += start
        self._work.put(function)
        if start:
            threading.Thread(target=self._serve, name=f"{self.name}_{number}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            function = self._work.get()
            try:
                function()
            except Exception:
                log.exception("%s: %r failed", threading.current_thread().name, function)
            with self._lock:
                self._busy -= 1
