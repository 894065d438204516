"""Clocks: the real one, and one a test moves by hand.

An instance of either is callable and returns `monotonic()`, so it fits wherever a plain
``clock`` callable is wanted.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Time as the runtime sees it: monotonic seconds, wall time in UTC, and waiting."""

    def monotonic(self) -> float: ...

    def wall_now(self) -> datetime: ...

    async def sleep_async(self, seconds: float) -> None: ...


class SystemClock:
    """The clock of the machine."""

    def __call__(self) -> float:
        return time.monotonic()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wall_now(self) -> datetime:
        """Now, in UTC."""
        return datetime.now(UTC)

    async def sleep_async(self, seconds: float) -> None:
        """Wait; zero or less yields to the loop once."""
        await asyncio.sleep(max(0.0, seconds))


class ManualClock:
    """A clock that stands still until told otherwise."""

    def __init__(self, start: float = 1000.0, wall_start: datetime | None = None) -> None:
        self._now = start
        self._wall = datetime(2026, 1, 1, tzinfo=UTC) if wall_start is None else wall_start

    def __call__(self) -> float:
        return self._now

    def monotonic(self) -> float:
        """Seconds as last set."""
        return self._now

    def wall_now(self) -> datetime:
        """Wall time, moved together with the monotonic one."""
        return self._wall

    def now_utc(self) -> datetime:
        """The same as `wall_now`."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Move both clocks by `seconds`."""
        self._now += seconds
        self._wall += timedelta(seconds=seconds)

    def tick(self, absolute: float) -> None:
        """Move to an absolute monotonic value.

        Raises:
            ValueError: `absolute` lies in the past.
        """
        if absolute < self._now:
            raise ValueError(f"clock cannot move backwards: asked for {absolute}, already at {self._now}")
        self.advance(absolute - self._now)
        self._now = absolute  # the sum may be off by a rounding step

    async def sleep_async(self, seconds: float) -> None:
        """Yield once, then let that much time have passed."""
        await asyncio.sleep(0)
        if seconds > 0:
            self.advance(seconds)
