"""A thread's conversation, as a turn reads and extends it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from techrevati.fleet.codec import encode
from techrevati.fleet.models import Message
from techrevati.store.records import decode_json


class Messages(Sequence[Message]):
    """The thread's conversation: what stands is read-only, new messages are appended.

    What stands is decoded when it is first read: a turn that only appends does not pay for history.
    """

    def __init__(self, stored: Sequence[str], limit: int) -> None:
        self._stored, self._limit = stored, limit
        self._decoded: list[Message] | None = None
        self.added: list[Message] = []

    def _all(self) -> list[Message]:
        if self._decoded is None:
            self._decoded = [decode_json(text) for text in self._stored]
        return self._decoded + self.added

    def append(self, message: Message) -> None:
        """Add a message; it is kept when the turn commits.

        Raises:
            NotJson, PayloadTooLarge.
        """
        encode(message, f"message {len(self)}", self._limit)
        self.added.append(message)

    def extend(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.append(message)

    def __len__(self) -> int:
        return len(self._stored) + len(self.added)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        return self._all()[index]

    def __iter__(self) -> Iterator[Message]:
        return iter(self._all())
