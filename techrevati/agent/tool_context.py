"""What a tool may use while it runs: reads, its identity, progress, cancellation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from techrevati.agent.actions import ContextMessage
from techrevati.agent.cancellation import Cancellation
from techrevati.agent.context import RunIdentity
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import Document
from techrevati.agent.state.spec import StateSpec
from techrevati.agent.suspension import ToolCallResume
from techrevati.agent.threads.message import Message
from techrevati.agent.tools import ToolProgress

S = TypeVar("S", bound=StateSpec)


def _silent(*_: Any) -> None:
    return None


@dataclass(frozen=True, slots=True)
class ToolCallContext:
    """One call, as its tool sees it.

    Attributes:
        call_id: The model's id of the call, and the idempotency key of whatever the tool does outside.
        document: The state this call was started with: in a parallel round the one from before the round.
        messages: The caller's thread as the run sees it.
        resume_input: The decision, when this is a replay because of one; None otherwise.
        scratch: What an earlier attempt of this call kept (JSON).
        deadline_ms: Unix ms by which the call is cut off; None = no limit.
    """

    call_id: str
    tool_name: str
    identity: RunIdentity
    policy: RunPolicy
    document: Document
    messages: Sequence[Message] = ()
    resume_input: ToolCallResume | None = None
    scratch: Any = None
    attempt: int = 1
    deadline_ms: int | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)
    on_progress: Callable[[ToolProgress], None] = _silent
    on_activity: Callable[[str, str, Mapping[str, Any]], None] = _silent
    on_message: Callable[[ContextMessage], None] = _silent
    on_scratch: Callable[[Any], None] = _silent

    @property
    def idempotency_key(self) -> str:
        return self.call_id

    @property
    def source(self) -> str:
        """Give the provenance of this call's patches."""
        return f"tool:{self.tool_name}"

    @property
    def is_cancelled(self) -> bool:
        return self.cancellation.is_cancelled

    def snapshot(self) -> Any:
        """Give the whole state as JSON."""
        return self.document.value

    def report_progress(self, update: ToolProgress) -> None:
        """Tell how far the call is; one activity event per update."""
        self.on_progress(update)

    def activity(self, stream_id: str, activity_type: str, content: Mapping[str, Any]) -> None:
        """Show something of one's own while the call runs; `content` replaces what the stream showed before."""
        self.on_activity(stream_id, activity_type, content)

    def add_message(self, message: ContextMessage) -> None:
        """Queue a message to be stored after the round's results."""
        self.on_message(message)

    def keep(self, scratch: Any) -> None:
        """Keep JSON with this call's durable state; a replay finds it in `scratch`."""
        self.on_scratch(scratch)
