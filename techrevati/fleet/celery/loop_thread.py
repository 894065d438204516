"""An asyncio loop in a thread of its own, and the service that lives on it."""

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, Protocol

from techrevati.runtime.errors import TechrevatiError

log = logging.getLogger(__name__)

START_WITHIN = 30.0  # s
STOP_WITHIN = 5.0  # s, for the service, then for the loop


class Places(Protocol):
    """What a service may ask of the pool it works for."""

    limit: int
    draining: bool

    @property
    def free(self) -> int: ...


class LoopService(Protocol):
    """What lives on the pool's loop for as long as the pool does; ``app.techrevati_runtime``."""

    async def start(self, loop: asyncio.AbstractEventLoop, pool: Places) -> None: ...

    async def stop(self) -> None: ...


class LoopDidNotStart(TechrevatiError):
    """The service of the pool's loop failed, so the worker must not take tickets."""

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(service, reason)
        self.service, self.reason = service, reason

    def __str__(self) -> str:
        return f"worker pool: {self.service} did not start: {self.reason}"


class LoopThread:
    """Started once, stopped once."""

    def __init__(self, service: LoopService | None) -> None:
        self.loop = asyncio.new_event_loop()
        self._service = service
        self._thread = threading.Thread(target=self._run, name="techrevati-loop", daemon=True)

    def start(self, pool: Places) -> None:
        """Start the loop, then its service.

        Raises:
            LoopDidNotStart: the service raised, or took longer than `START_WITHIN`.
        """
        self._thread.start()
        if self._service is None:
            return
        try:
            self._wait_for(self._service.start(self.loop, pool), START_WITHIN)
        except Exception as error:
            self._end()
            raise LoopDidNotStart(type(self._service).__name__, repr(error)) from error

    def stop(self) -> None:
        """Stop the service, then the loop; each gets `STOP_WITHIN`."""
        if self._service is not None:
            try:
                self._wait_for(self._service.stop(), STOP_WITHIN)
            except Exception:
                log.exception("%s did not stop cleanly", type(self._service).__name__)
        self._end()

    def _wait_for(self, work: Coroutine[Any, Any, None], timeout: float) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def _end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(STOP_WITHIN)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()
