"""What clients may see of a thread."""

from typing import Any

import msgspec

from techrevati.agent.state.document import apply
from techrevati.agent.state.patch import Delete, Patch
from techrevati.agent.state.paths import RUN
from techrevati.agent.state.registry import NO_LATTICES, LatticeRegistry
from techrevati.agent.state.values import plain
from techrevati.agent.threads.message import Message
from techrevati.agent.threads.thread import Thread


def public_message(message: Message) -> Message:
    """Give a message without the id of its run."""
    metadata = {key: value for key, value in message.metadata.items() if key != "run_id"}
    return msgspec.structs.replace(message, metadata=metadata)


def public_thread(thread: Thread, registry: LatticeRegistry = NO_LATTICES) -> dict[str, Any]:
    """Give a thread as JSON for clients: its state with every patch applied, without patches, run ids and
    internal messages."""
    shown = msgspec.structs.replace(
        thread,
        messages=tuple(public_message(message) for message in thread.messages if not message.is_internal),
        state=apply(thread.rebuild_state(registry), Patch((Delete((*RUN, "id")),)), registry),
        patches=(),
    )
    encoded: dict[str, Any] = plain(shown)
    return encoded
