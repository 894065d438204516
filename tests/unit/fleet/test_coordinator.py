"""A coordinator without its store."""

import asyncio
from typing import Any

import pytest

from techrevati.fleet import coordinator as module
from techrevati.fleet.coordinator import Coordinator
from techrevati.fleet.settings import load_settings
from techrevati.store.aio import AsyncStore


def impatient(url: str, *, patience: float, **options: Any) -> AsyncStore:
    return AsyncStore(url, patience=min(patience, 0.1), **options)


async def test_a_coordinator_that_waits_for_its_store_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AsyncStore", impatient)
    coordinator = Coordinator("nowhere", load_settings(redis_url="redis://127.0.0.1:1/0"), {})
    task = asyncio.create_task(coordinator.run())
    await asyncio.sleep(0)
    coordinator.stop()
    async with asyncio.timeout(10):
        await task
