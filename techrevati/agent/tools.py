"""A tool, as the model and the loop see it.

    model ──arguments──▶ validate ──▶ run(arguments, ToolCallContext) ──▶ ToolExecutionEffect(result, actions)

A tool never writes state: it reads through its context and returns actions.  Whatever it raises becomes an
error result for the model, never a failure of the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from techrevati.agent.suspension import SuspendTicket
from techrevati.runtime.errors import TechrevatiError

if TYPE_CHECKING:
    from techrevati.agent.actions import AfterToolExecuteAction
    from techrevati.agent.tool_context import ToolCallContext

JsonObject = dict[str, Any]


def _no_parameters() -> JsonObject:
    return {"type": "object", "properties": {}}


class ToolDescriptor(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is told about a tool.

    Attributes:
        id: What the model calls, unique in an agent.
        name: For people; the id if it is empty.
        parameters: JSON Schema of the arguments.
        metadata: Free JSON, for behaviours and clients (``mcp.server``, …).
    """

    id: str
    name: str = ""
    description: str = ""
    parameters: JsonObject = msgspec.field(default_factory=_no_parameters)
    category: str | None = None
    metadata: JsonObject = msgspec.field(default_factory=dict)


class ToolStatus(StrEnum):
    SUCCESS = "success"
    WARNING = "warning"
    PENDING = "pending"
    ERROR = "error"


class ToolResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a call gave; the model sees the JSON of the whole record.  Make one with the constructors."""

    tool_name: str
    status: ToolStatus
    data: Any = None
    message: str | None = None
    metadata: JsonObject = msgspec.field(default_factory=dict)
    suspension: SuspendTicket | None = None

    @classmethod
    def success(cls, tool_name: str, data: Any = None, message: str | None = None) -> "ToolResult":
        return cls(tool_name, ToolStatus.SUCCESS, data, message)

    @classmethod
    def warning(cls, tool_name: str, data: Any, message: str) -> "ToolResult":
        """Succeed, with something the model should know."""
        return cls(tool_name, ToolStatus.WARNING, data, message)

    @classmethod
    def suspended(cls, tool_name: str, message: str, ticket: SuspendTicket | None = None) -> "ToolResult":
        """Park this call; without a ticket it stands for itself and is replayed on resume."""
        return cls(tool_name, ToolStatus.PENDING, None, message, suspension=ticket)

    @classmethod
    def error(cls, tool_name: str, message: str, *, code: str | None = None) -> "ToolResult":
        """Fail; with a code, data is ``{"error": {"code", "message"}}`` and the message ``[code] message``."""
        if code is None:
            return cls(tool_name, ToolStatus.ERROR, None, message)
        return cls(tool_name, ToolStatus.ERROR, {"error": {"code": code, "message": message}}, f"[{code}] {message}")

    @property
    def is_error(self) -> bool:
        return self.status is ToolStatus.ERROR

    def to_json(self) -> JsonObject:
        wire: JsonObject = msgspec.to_builtins(self)
        return {"data": None, **wire}


ToolErrorKind = Literal["invalid_arguments", "execution_failed", "denied", "not_found", "internal"]


class ToolError(TechrevatiError):
    """A tool cannot do what it was asked; the model gets it as an error result.

    `code` becomes the result's error code; without one the kind stands for itself in the text only.
    """

    def __init__(self, message: str, kind: ToolErrorKind = "execution_failed", code: str | None = None) -> None:
        super().__init__(message, kind, code)
        self.message, self.kind, self.code = message, kind, code

    def __str__(self) -> str:
        return self.message if self.kind == "execution_failed" else f"{self.kind.replace('_', ' ')}: {self.message}"


@dataclass(frozen=True, slots=True)
class ToolExecutionEffect:
    """A result, and what the tool wants done after it: applied before the behaviours' `after_tool_execute`."""

    result: ToolResult
    actions: "tuple[AfterToolExecuteAction, ...]" = ()


class Tool(Protocol):
    """A capability the model may call.

    `repeatable` says that a call which lost a conflict against a parallel one may run again with the same
    idempotency key; False makes it an error result instead.  A tool may have a `role`, too: see `role_of`.
    """

    @property
    def descriptor(self) -> ToolDescriptor: ...

    @property
    def repeatable(self) -> bool: ...

    def validate(self, arguments: Any) -> None:
        """Refuse arguments that do not fit the schema.

        Raises:
            ToolError: kind ``invalid_arguments``, with a text the model can act on.
        """
        ...

    async def run(self, arguments: Any, ctx: "ToolCallContext") -> ToolExecutionEffect: ...


def role_of(tool: Tool) -> str | None:
    """Give the pool that is to run a tool's calls on a fleet; None: the agent's own worker."""
    role: str | None = getattr(tool, "role", None)
    return role


ToolSet = Mapping[str, Tool]
"""Tool by id, frozen for one step."""


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """How far a call is, told while it runs; each update stands for itself."""

    status: Literal["pending", "running", "done", "failed", "cancelled"] = "running"
    progress: float | None = None
    loaded: float | None = None
    total: float | None = None
    message: str | None = None
    extra: JsonObject = field(default_factory=dict)
