"""The model calls of one turn: each in a task of its own, its answer journaled.

    turn.model ─▶ ModelCalls.make ─▶ admitted (waits, or parks) ─▶ Caller ─▶ ModelReply ─▶ journal

Where one task of a turn parks, the calls of the others go on and are paid for: their answers go with the park.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from techrevati.fleet.calling import Caller, Refused, patiently
from techrevati.fleet.feedback import SILENT
from techrevati.fleet.journal import Journal
from techrevati.fleet.models import ModelReply, ModelRequest
from techrevati.fleet.outcome import Parked

T = TypeVar("T")


class ModelCalls:
    """The calls under way; `waits` is told when a gate lets the turn wait for at most `park_after` seconds."""

    def __init__(self, journal: Journal, *, park_after: float, waits: Callable[[Refused], None]) -> None:
        self._journal, self._park_after, self._waits = journal, park_after, waits
        self._under_way: set[asyncio.Task[ModelReply]] = set()
        self.parking = False

    async def make(self, key: str, caller: Caller, name: str, request: ModelRequest) -> ModelReply:
        """Make one call and journal its answer under `key`, whatever becomes of the task that asked for it."""
        return await self._in_a_task(self._make(key, caller, name, request))

    async def _make(self, key: str, caller: Caller, name: str, request: ModelRequest) -> ModelReply:
        reply = replace(await self.admitted(lambda: caller.call(name, request)), feedback=SILENT)
        self._journal.keep(key, msgspec.json.encode(reply).decode())
        return reply

    async def _in_a_task(self, making: Coroutine[Any, Any, ModelReply]) -> ModelReply:
        task = asyncio.get_running_loop().create_task(making)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not self.parking:  # not one task of a group that ends because another parks
                task.cancel()
                await asyncio.wait({task})
            raise

    async def admitted(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do what a gate or a budget may refuse: a short wait is waited out, a longer one parks the turn."""
        try:
            return await patiently(attempt, park_after=self._park_after, waits=self._waits)
        except Parked:
            self.parking = True
            raise

    async def end(self) -> None:
        """Wait for the calls under way: what they cost is paid, so their answers go with the park."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    def stop(self) -> None:
        """Stop the calls that the turn has left behind."""
        for task in set(self._under_way):
            task.cancel()
