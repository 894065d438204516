"""What is said in a thread: by the system, the user, the model and its tools."""

from enum import StrEnum
from typing import Any

import msgspec

from techrevati.agent.threads.ids import new_id


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Visibility(StrEnum):
    """Who gets to see a message."""

    ALL = "all"
    INTERNAL = "internal"
    """The model, not the clients."""


class ToolCall(msgspec.Struct, frozen=True):
    """What the model asks a tool for; `arguments` are JSON."""

    id: str
    name: str
    arguments: Any = None


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message.  `metadata` is JSON: the runtime's `run_id` and `step_index`, and marks of its own."""

    id: str = msgspec.field(default_factory=new_id)
    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    visibility: Visibility = Visibility.ALL
    metadata: dict[str, Any] = {}

    @property
    def run_id(self) -> str | None:
        return self.metadata.get("run_id")

    @property
    def step_index(self) -> int | None:
        return self.metadata.get("step_index")

    @property
    def is_internal(self) -> bool:
        return self.visibility is Visibility.INTERNAL

    def within(self, run_id: str, step_index: int | None = None) -> "Message":
        """Give the same message as part of a run, and of a step of it."""
        step = {} if step_index is None else {"step_index": step_index}
        return msgspec.structs.replace(self, metadata={**self.metadata, "run_id": run_id, **step})

    @classmethod
    def system(cls, content: str, **fields: Any) -> "Message":
        return cls(role=Role.SYSTEM, content=content, **fields)

    @classmethod
    def user(cls, content: str, **fields: Any) -> "Message":
        return cls(role=Role.USER, content=content, **fields)

    @classmethod
    def assistant(cls, content: str, tool_calls: tuple[ToolCall, ...] = (), **fields: Any) -> "Message":
        return cls(role=Role.ASSISTANT, content=content, tool_calls=tool_calls, **fields)

    @classmethod
    def tool(cls, content: str, tool_call_id: str, **fields: Any) -> "Message":
        return cls(role=Role.TOOL, content=content, tool_call_id=tool_call_id, **fields)
