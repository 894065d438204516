"""What a hook may look at: the run as it stands, and nothing it could change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from techrevati.agent.actions import Phase
from techrevati.agent.model import InferenceError, StreamResult
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import Document
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.spec import StateSpec, state_at
from techrevati.agent.suspension import ToolCallResume
from techrevati.agent.threads.message import Message
from techrevati.agent.threads.runs import RunOrigin
from techrevati.agent.tools import ToolDescriptor, ToolResult

if TYPE_CHECKING:
    from techrevati.agent.subagents.port import SubAgents

S = TypeVar("S", bound=StateSpec)


class RunIdentity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who runs, where it came from."""

    thread_id: str
    run_id: str
    agent_id: str
    origin: RunOrigin = RunOrigin.USER
    parent_thread_id: str | None = None
    parent_run_id: str | None = None
    parent_tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReadOnlyContext:
    """One phase of one run; every behaviour of the phase gets the same.

    Attributes:
        messages: The whole thread as this run sees it; `run_messages` is what this run added.
        step: 0 for the run's first step.
        tools: Descriptors of the tools the step was resolved with (before this inference's filters).
        response: What the model answered, in `after_inference` of a call that succeeded.
        inference_error: Why it did not.
        tool_name, tool_call_id, tool_args: The call, in the tool phases.
        tool_result: Its result, in `after_tool_execute`.
        resume_input: The decision, when the call is being replayed because of one.
        now_ms: The loop's clock when the phase began, Unix ms.
        children: Where sub-agents run; ask it how they stand, leave starting to tools.
        above: What binds this run from above, root agent first: of each agent there, as it was when it sent the next
            one out, its states with `BINDS_CHILDREN`; None is one of which that is not known.  Empty: nobody is above.
    """

    phase: Phase
    identity: RunIdentity
    policy: RunPolicy
    messages: Sequence[Message]
    initial_message_count: int
    document: Document
    step: int = 0
    tools: tuple[ToolDescriptor, ...] = ()
    response: StreamResult | None = None
    inference_error: InferenceError | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    tool_args: Any = None
    tool_result: ToolResult | None = None
    resume_input: ToolCallResume | None = None
    now_ms: int = 0
    children: "SubAgents | None" = None
    above: tuple[Document | None, ...] = ()

    @property
    def thread_id(self) -> str:
        return self.identity.thread_id

    @property
    def run_id(self) -> str:
        return self.identity.run_id

    @property
    def run_messages(self) -> Sequence[Message]:
        return self.messages[self.initial_message_count :]

    def snapshot(self) -> Any:
        """Give the whole state as JSON."""
        return self.document

    def snapshot_of(self, spec: type[S]) -> S | None:
        """Read a typed state of the thread or the run at its own path; None when it was never written."""
        return state_at(self.document, spec)

    def scoped_state_of(self, spec: type[S], call_id: str | None = None) -> S:
        """Read a typed state through its scope, call-scoped ones of the current call; defaults when absent."""
        if spec.SCOPE is StateScope.TOOL_CALL:
            return state_at(self.document, spec, call_id=call_id or self.tool_call_id) or spec()
        return state_at(self.document, spec) or spec()
