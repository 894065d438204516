"""The state from which a run goes on exactly: all a step knows of the past."""

from dataclasses import dataclass

from techrevati.agent.state.document import Document
from techrevati.agent.threads.message import Message


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A thread at one version.

    Attributes:
        messages: The whole conversation, oldest first.
        document: The rebuilt state; never changed in place.
        version: What the next changeset is stored on top of.
    """

    thread_id: str
    messages: tuple[Message, ...]
    document: Document
    version: int
