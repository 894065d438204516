"""What a tool may use while it runs: reads, its identity, progress, cancellation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from techrevati.agent.actions import ContextMessage
from techrevati.agent.cancellation import Cancellation
from techrevati.agent.context import RunIdentity
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import Document, find
from techrevati.agent.state.paths import as_path
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.spec import StateSpec, state_at
from techrevati.agent.suspension import ToolCallResume
from techrevati.agent.threads.ids import new_id
from techrevati.agent.threads.message import Message
from techrevati.agent.tools import ToolProgress

if TYPE_CHECKING:
    from techrevati.agent.subagents.port import SubAgents

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
        attempt: 2 when the call runs again because its first patch met a parallel one's.
        started_at_ms: Unix ms at which the run began.
        deadline_ms: Unix ms by which the call is cut off; None = no limit.
        depth: How many agents stand above this run.
        binds: What binds the agents this call sends out, root agent first, this run last, as `ReadOnlyContext.above`.
        children: Where sub-agents run, if this run may have any.
        new_id: Ids that a replay of the call makes again.
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
    started_at_ms: int = 0
    deadline_ms: int | None = None
    depth: int = 0
    binds: tuple[Document | None, ...] = (None,)
    children: "SubAgents | None" = None
    new_id: Callable[[], str] = new_id
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
        return self.document

    def snapshot_at(self, path: Sequence[str | int], default: Any = None) -> Any:
        """Give the JSON at a path, or `default` where nothing stands."""
        return find(self.document, as_path(path), default)

    def snapshot_of(self, spec: type[S]) -> S | None:
        """Read a typed state of the thread or the run; None when it was never written."""
        return state_at(self.document, spec)

    def scoped_state_of(self, spec: type[S]) -> S:
        """Read a typed state through its scope, call-scoped ones of this call; defaults when absent."""
        call_id = self.call_id if spec.SCOPE is StateScope.TOOL_CALL else None
        return state_at(self.document, spec, call_id=call_id) or spec()

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
