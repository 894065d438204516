"""Clocks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from techrevati.runtime import Clock, ManualClock, SystemClock, TokenBucket


async def test_the_system_clock_runs() -> None:
    clock = SystemClock()
    assert isinstance(clock, Clock)
    before = clock.monotonic()
    await clock.sleep_async(0)
    await clock.sleep_async(-1)
    assert clock() >= before
    assert clock.wall_now().tzinfo is UTC


async def test_the_manual_clock_moves_on_request() -> None:
    clock = ManualClock()
    assert isinstance(clock, Clock)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert (clock(), clock.monotonic(), clock.wall_now(), clock.now_utc()) == (1000, 1000, start, start)
    clock.advance(1.5)
    clock.tick(1010.25)
    assert (clock(), clock.wall_now()) == (1010.25, start + timedelta(seconds=10.25))
    clock.tick(1010.25)
    with pytest.raises(ValueError, match="cannot move backwards"):
        clock.tick(1000)
    ran = False

    async def other() -> None:
        nonlocal ran
        ran = True

    task = asyncio.create_task(other())
    await clock.sleep_async(5)
    assert ran
    await task
    assert clock() == 1015.25
    await clock.sleep_async(-5)
    assert clock() == 1015.25


def test_other_starts_and_other_uses() -> None:
    wall = datetime(2030, 5, 5, tzinfo=UTC)
    clock = ManualClock(start=5, wall_start=wall)
    assert (clock(), clock.wall_now()) == (5, wall)
    assert TokenBucket("b", 1, 1, clock).available == 1
