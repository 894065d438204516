"""One task in the pool."""

import asyncio
from collections.abc import Callable
from typing import Any

from techrevati.fleet.celery.tracer import Interrupt


class Job:
    """What the pool knows of a task; Celery keeps a weak reference to it as the apply result."""

    __slots__ = (
        "__weakref__",
        "_terminate",
        "ended",
        "handle",
        "interrupt",
        "on_result",
        "on_timeout",
        "pid",
        "timers",
    )

    def __init__(
        self,
        pid: int,
        terminate: Callable[[int, int | None], None],
        on_result: Callable[..., Any],
        on_timeout: Callable[..., Any] | None,
    ) -> None:
        self.pid, self._terminate, self.on_result, self.on_timeout = pid, terminate, on_result, on_timeout
        self.handle: asyncio.Task[None] | None = None
        self.interrupt = Interrupt()
        self.timers: tuple[asyncio.TimerHandle, ...] = ()
        self.ended = False

    def terminate(self, signal: int | None = None) -> None:
        self._terminate(self.pid, signal)
