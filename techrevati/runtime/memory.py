"""Conversation memory: what is said stays, until a window or a token budget says otherwise.

    add ──▶ messages ──policy.compact──▶ pinned + (summary) + the newest

Pinned messages (instructions) always stay.  A cut never separates a tool's answer from the call
before it: an answer without its call is dropped too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

TOOL_ROLE = "tool"


@dataclass(frozen=True, slots=True)
class Message:
    """One thing said, by whom."""

    role: str
    content: str
    pinned: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping; ``pinned`` only when it is."""
        record: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.pinned:
            record["pinned"] = True
        return record

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Rebuild from `to_dict`."""
        return cls(data["role"], data["content"], bool(data.get("pinned", False)))


class Compaction(Protocol):
    """Decides which messages stay."""

    def compact(self, messages: Sequence[Message]) -> list[Message]: ...


def estimate_tokens(message: Message) -> int:
    """About four characters per token, plus a few for the envelope.  Bring a tokenizer for more."""
    return len(message.content) // 4 + 4


def newest(messages: Sequence[Message], room: int, cost: Callable[[Message], int]) -> int:
    """Where the longest end of `messages` that costs at most `room` starts.

    The last message always stays, and the end never starts with a tool's answer that was cut off
    from its call.
    """
    start, spent = len(messages), 0
    while start > 0:
        spent += cost(messages[start - 1])
        if spent > room and start < len(messages):
            break
        start -= 1
    while 0 < start < len(messages) - 1 and messages[start].role == TOOL_ROLE:
        start += 1
    return start


def _split(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    pinned = [message for message in messages if message.pinned]
    return pinned, [message for message in messages if not message.pinned]


@dataclass(frozen=True)
class Window:
    """Keeps the last `size` messages, pinned ones besides."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"window size must be >= 1, got {self.size}")

    def compact(self, messages: Sequence[Message]) -> list[Message]:
        """Pinned messages, then the newest."""
        pinned, loose = _split(messages)
        return [*pinned, *loose[newest(loose, self.size, lambda _: 1) :]]


@dataclass(frozen=True)
class TokenBudget:
    """Keeps what fits in `max_tokens`; what falls out may be summed up by `summarize`.

    `summary_tokens` is the room held free for the summary, which is left out if it needs more.
    The summary of one compaction is part of what the next one sums up.  The last message always
    stays, even if it alone is too long.
    """

    max_tokens: int
    count: Callable[[Message], int] = estimate_tokens
    summarize: Callable[[Sequence[Message]], Message] | None = None
    summary_tokens: int = 0

    def compact(self, messages: Sequence[Message]) -> list[Message]:
        """Pinned messages, a summary of what was dropped, then the newest.

        Raises:
            ValueError: the pinned messages alone are too long.
        """
        pinned, loose = _split(messages)
        room = self.max_tokens - sum(map(self.count, pinned))
        if room < 0:
            raise ValueError(f"pinned messages need {self.max_tokens - room} tokens, the budget is {self.max_tokens}")
        if sum(map(self.count, loose)) <= room:
            return [*pinned, *loose]
        start = newest(loose, room - self.summary_tokens, self.count)
        dropped, kept = loose[:start], loose[start:]
        if dropped and self.summarize is not None:
            summary = self.summarize(dropped)
            if self.count(summary) + sum(map(self.count, kept)) <= room:
                return [*pinned, summary, *kept]
        return [*pinned, *kept]


class ConversationMemory:
    """The messages of one conversation, compacted as they grow."""

    def __init__(self, policy: Compaction | None = None, messages: Iterable[Message] = ()) -> None:
        self._policy = policy
        self._messages: list[Message] = list(messages)
        self._compact()

    @property
    def messages(self) -> list[Message]:
        """What is remembered, oldest first."""
        return list(self._messages)

    def add(self, role: str, content: str, *, pinned: bool = False) -> Message:
        """Remember a message; older ones may be forgotten for it."""
        message = Message(role, content, pinned)
        self._messages.append(message)
        self._compact()
        return message

    def to_state(self) -> list[dict[str, Any]]:
        """JSON data for a checkpoint."""
        return [message.to_dict() for message in self._messages]

    @classmethod
    def from_state(cls, state: Iterable[Mapping[str, Any]], policy: Compaction | None = None) -> ConversationMemory:
        """Go on from `to_state`."""
        return cls(policy, (Message.from_dict(entry) for entry in state))

    def _compact(self) -> None:
        if self._policy is not None:
            self._messages = self._policy.compact(self._messages)
