"""A thread: its conversation, its state, and the patches since that state was last folded.

thread ──changeset──▶ thread'      snapshot? state is replaced, patches are cleared
                                   messages append (known ids are skipped), patches append
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from techrevati.agent.state.document import Document, apply_all
from techrevati.agent.state.errors import NoSuchPatch
from techrevati.agent.state.patch import TrackedPatch
from techrevati.agent.state.registry import NO_LATTICES, LatticeRegistry
from techrevati.agent.threads.changeset import ThreadChangeSet
from techrevati.agent.threads.message import Message


class ThreadMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """Times in unix ms; `extra` is the application's, JSON."""

    created_at: int = 0
    updated_at: int = 0
    version: int = 0
    version_timestamp: int = 0
    extra: dict[str, Any] = {}


class Thread(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A thread as it stands at one version; never changed in place."""

    id: str
    resource_id: str | None = None
    parent_thread_id: str | None = None
    messages: tuple[Message, ...] = ()
    state: dict[str, Any] = {}
    patches: tuple[TrackedPatch, ...] = ()
    metadata: ThreadMetadata = ThreadMetadata()

    def rebuild_state(self, registry: LatticeRegistry = NO_LATTICES) -> Document:
        """Give the state with every patch applied."""
        return apply_all(self.state, self.patches, registry)

    def replay_to(self, index: int, registry: LatticeRegistry = NO_LATTICES) -> Document:
        """Give the state after patches 0 to `index`, that one included.

        Raises:
            NoSuchPatch: there are fewer.
        """
        if not 0 <= index < len(self.patches):
            raise NoSuchPatch(index, len(self.patches))
        return apply_all(self.state, self.patches[: index + 1], registry)

    def snapshot(self, registry: LatticeRegistry = NO_LATTICES) -> "Thread":
        """Give the thread with its patches folded into its state."""
        return msgspec.structs.replace(self, state=self.rebuild_state(registry), patches=())

    def needs_snapshot(self, patches: int) -> bool:
        """Say whether at least that many patches wait to be folded."""
        return len(self.patches) >= patches


def stored_whole(thread: Thread, known: int | None, now_ms: int) -> Thread:
    """Date and number a thread that is stored whole, instead of version `known` if there is one.

    Versions never go back: it gets the one it comes with, or the next.
    """
    metadata = msgspec.structs.replace(
        thread.metadata,
        version=max(thread.metadata.version, 0 if known is None else known + 1),
        created_at=thread.metadata.created_at or now_ms,
        updated_at=now_ms,
        version_timestamp=now_ms,
    )
    return msgspec.structs.replace(thread, metadata=metadata)


class ThreadLog:
    """A thread that grows in place: what a change costs follows the change, not the thread."""

    __slots__ = ("_base", "_ids", "_messages", "_metadata", "_parent", "_patches", "_state")

    def __init__(self, thread: Thread) -> None:
        self._base = thread
        self._messages = list(thread.messages)
        self._ids = {message.id for message in thread.messages}
        self._state, self._patches = thread.state, list(thread.patches)
        self._parent, self._metadata = thread.parent_thread_id, thread.metadata

    @property
    def version(self) -> int:
        return self._metadata.version

    @property
    def parent_thread_id(self) -> str | None:
        return self._parent

    @property
    def messages(self) -> list[Message]:
        """The messages, to be read only."""
        return self._messages

    def add(self, change: ThreadChangeSet, now_ms: int) -> ThreadChangeSet:
        """Take in a change; gives what of it was new: without the messages that were known."""
        known = len(self._messages)
        if change.snapshot is not None:  # it was taken after the change's own patches: it has them already
            self._state = change.snapshot
            self._patches.clear()
        else:
            self._patches.extend(change.patches)
        self._messages.extend(self._unseen(change.messages))
        if self._parent is None and change.run_meta is not None:
            self._parent = change.run_meta.parent_thread_id
        self._metadata = msgspec.structs.replace(
            self._metadata, version=self.version + 1, updated_at=now_ms, version_timestamp=now_ms
        )
        brought = tuple(self._messages[known:])
        return change if len(brought) == len(change.messages) else msgspec.structs.replace(change, messages=brought)

    def _unseen(self, messages: Iterable[Message]) -> Iterator[Message]:
        for message in messages:
            if message.id not in self._ids:
                self._ids.add(message.id)
                yield message

    def thread(self) -> Thread:
        """Give the thread as it stands."""
        return msgspec.structs.replace(
            self._base,
            parent_thread_id=self._parent,
            messages=tuple(self._messages),
            state=self._state,
            patches=tuple(self._patches),
            metadata=self._metadata,
        )


def apply_changeset(thread: Thread, change: ThreadChangeSet, *, now_ms: int) -> Thread:
    """Give the thread after a change."""
    log = ThreadLog(thread)
    log.add(change, now_ms)
    return log.thread()
