"""Conversations with the store, described once: a generator says what to ask for, and is sent the answers.

    def look() -> Talk[Server]:            hold(SyncStore, look()) ─┐
        info = yield Command(("INFO",))                             ├─▶ Server
        return facts(info)            await ahold(AsyncStore, look()) ─┘

What Redis refuses is raised inside the generator, where it can be answered.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from techrevati.store.aio import AsyncStore
from techrevati.store.calls import Arg, Call
from techrevati.store.sync import SyncStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Command:
    """One plain, idempotent command; `binary`: the reply is bytes as they are stored."""

    args: Sequence[Arg]
    binary: bool = False


@dataclass(frozen=True, slots=True)
class Behind:
    """A call, and a command behind it on the same connection; answered by both answers."""

    call: Call[Any]
    command: Sequence[Arg]


Said = Call[Any] | Behind | Command
Talk = Generator[Said, Any, T]


def hold(store: SyncStore, talk: Talk[T]) -> T:
    """Hold a conversation, blocking."""
    try:
        said = next(talk)
        while True:
            try:
                if isinstance(said, Call):
                    answer: Any = store.run(said)
                elif isinstance(said, Behind):
                    answer = store.run_then(said.call, said.command)
                else:
                    answer = store.command(*said.args, binary=said.binary)
            except Exception as error:  # noqa: BLE001 - whoever asked knows what to make of it
                said = talk.throw(error)
            else:
                said = talk.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def ahold(store: AsyncStore, talk: Talk[T]) -> T:
    """Hold a conversation in an event loop."""
    try:
        said = next(talk)
        while True:
            try:
                if isinstance(said, Call):
                    answer: Any = await store.run(said)
                elif isinstance(said, Behind):
                    answer = await store.run_then(said.call, said.command)
                else:
                    answer = await store.command(*said.args, binary=said.binary)
            except Exception as error:  # noqa: BLE001 - whoever asked knows what to make of it
                said = talk.throw(error)
            else:
                said = talk.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
