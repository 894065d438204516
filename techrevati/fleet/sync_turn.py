"""A turn for an agent that is a plain function: the same, with calls that block its thread."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from techrevati.fleet.journal import Policy
from techrevati.fleet.models import Message, ModelReply
from techrevati.fleet.turn import Turn

T = TypeVar("T")


class SyncTurn:
    """What a sync agent gets: `model`, `step`, `start_child` and `pause` block; all else is the turn's own."""

    def __init__(self, turn: Turn, loop: asyncio.AbstractEventLoop) -> None:
        self._turn, self._loop = turn, loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._turn, name)

    def model(
        self, name: str, messages: Sequence[Message] | str, *, timeout: float | timedelta = 120.0, **options: Any
    ) -> ModelReply:
        return self._wait(self._turn.model(name, messages, timeout=timeout, **options))

    def step(self, key: str, fn: Callable[[], T], *, policy: Policy = "rerun") -> T:
        async def step() -> T:
            return await self._turn.step(key, lambda: asyncio.to_thread(fn), policy=policy)

        return self._wait(step())

    def start_child(self, agent: str, input: Any = None, **options: Any) -> str:
        return self._wait(self._turn.start_child(agent, input, **options))

    def pause(self, seconds: float | timedelta) -> None:
        self._wait(self._turn.pause(seconds))

    def delta(self, kind: str, data: Any) -> None:
        self._loop.call_soon_threadsafe(self._turn.delta, kind, data)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
