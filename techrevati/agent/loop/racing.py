"""Work that a cancellation or a deadline may cut short."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from techrevati.agent.endings import CANCELLED, TerminationReason, stopped
from techrevati.agent.loop.ports import Ports

T = TypeVar("T")

DEADLINE = stopped("timeout_reached", "deadline")


class CutShort(Exception):
    """The run must end now; what it waited for is abandoned.  Never leaves the loop."""

    def __init__(self, reason: TerminationReason) -> None:
        super().__init__(reason)
        self.reason = reason


async def let_go(task: "asyncio.Task[Any]", grace: float) -> None:
    """Cancel a task and give it `grace` seconds to clean up; after that it is left alone."""
    if not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=grace)
    if task.done() and not task.cancelled():
        task.exception()  # seen, so that nobody is told it was never retrieved


async def cut_short_by(ports: Ports, work: Callable[[], Coroutine[Any, Any, T]], *, deadline_ms: int | None) -> T:
    """Begin and await `work`, unless the run is cancelled or its deadline comes first.

    Raises:
        CutShort: it did; `work` was cancelled, or never begun.
    """
    if ports.cancellation.is_cancelled:
        raise CutShort(CANCELLED)
    left = None if deadline_ms is None else (deadline_ms - ports.now_ms()) / 1000
    if left is not None and left <= 0:
        raise CutShort(DEADLINE)
    task = asyncio.ensure_future(work())
    ends: list[asyncio.Task[Any]] = [asyncio.ensure_future(ports.cancellation.wait())]
    if left is not None:
        ends.append(asyncio.ensure_future(_as_coroutine(ports.sleep(left))))
    try:
        await asyncio.wait((task, *ends), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise CutShort(CANCELLED if ports.cancellation.is_cancelled else DEADLINE)
    finally:
        for end in ends:
            end.cancel()
        await let_go(task, ports.cancel_grace)


async def _as_coroutine(waiting: Awaitable[T]) -> T:
    return await waiting
