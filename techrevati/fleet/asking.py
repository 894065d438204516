"""Reads that take several round trips, described once for both clients.

    plan ── commands ──▶ store ── replies ──▶ plan ── … ──▶ result

A plan is a generator: it yields commands and is sent their replies.  The sync and the async client differ by how
they send them.
"""

from collections.abc import Generator, Sequence
from typing import Any, TypeAlias, TypeVar

from techrevati.store.aio import AsyncStore
from techrevati.store.calls import Arg
from techrevati.store.sync import SyncStore

T = TypeVar("T")

Commands: TypeAlias = Sequence[Sequence[Arg]]
Plan: TypeAlias = Generator[Commands, list[Any], T]


def ask(store: SyncStore, plan: Plan[T]) -> T:
    """Carry out a plan, blocking; what it raises is raised here."""
    replies: list[Any] | None = None
    while True:
        try:
            commands = next(plan) if replies is None else plan.send(replies)
        except StopIteration as done:
            result: T = done.value
            return result
        replies = store.commands(commands)


async def aask(store: AsyncStore, plan: Plan[T]) -> T:
    """Carry out a plan on an event loop."""
    replies: list[Any] | None = None
    while True:
        try:
            commands = next(plan) if replies is None else plan.send(replies)
        except StopIteration as done:
            result: T = done.value
            return result
        replies = await store.commands(commands)
