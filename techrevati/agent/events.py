"""What a run tells whoever follows it.

    loop ──AgentEvent──▶ Envelope(seq, step_id, …) ──▶ sink (after the commit it speaks of)

One wire form: ``{"type", "run_id", "thread_id", "seq", "timestamp_ms", "step_id"?, "data"?}``; consumers
ignore fields they do not know.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from techrevati.agent.endings import TerminationReason
from techrevati.agent.model import TokenUsage

JsonObject = dict[str, Any]
CallOutcome = Literal["succeeded", "failed", "suspended", "cancelled"]


class AgentEvent(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """The root of every variant; its tag is the wire `type`."""

    @property
    def type(self) -> str:
        return str(self.__struct_config__.tag)


class RunStart(AgentEvent, frozen=True, tag="run_start"):
    parent_run_id: str | None = None


class RunFinish(AgentEvent, frozen=True, tag="run_finish"):
    """The end.  `result` is ``{"response": text}`` for a natural end with text, otherwise absent."""

    termination: TerminationReason
    result: JsonObject | None = None


class StepStart(AgentEvent, frozen=True, tag="step_start"):
    """`message_id` is the id the step's assistant message will be stored under."""

    message_id: str


class StepEnd(AgentEvent, frozen=True, tag="step_end"):
    pass


class TextDelta(AgentEvent, frozen=True, tag="text_delta"):
    delta: str


class ReasoningDelta(AgentEvent, frozen=True, tag="reasoning_delta"):
    delta: str


class ReasoningEncryptedValue(AgentEvent, frozen=True, tag="reasoning_encrypted_value"):
    encrypted_value: str


class ToolCallStart(AgentEvent, frozen=True, tag="tool_call_start"):
    id: str
    name: str


class ToolCallDelta(AgentEvent, frozen=True, tag="tool_call_delta"):
    id: str
    args_delta: str


class ToolCallReady(AgentEvent, frozen=True, tag="tool_call_ready"):
    id: str
    name: str
    arguments: Any


class ToolCallDone(AgentEvent, frozen=True, tag="tool_call_done"):
    """`result` is the whole `ToolResult`, `message_id` the stored tool message's."""

    id: str
    result: JsonObject
    message_id: str
    outcome: CallOutcome
    patch: Any = None


class ToolCallResumed(AgentEvent, frozen=True, tag="tool_call_resumed"):
    target_id: str
    result: Any


class ToolCallCancelled(AgentEvent, frozen=True, tag="tool_call_cancel"):
    """A call whose start was streamed and that will not come: its stream broke."""

    id: str


class StreamReset(AgentEvent, frozen=True, tag="stream_reset"):
    """Forget the deltas of this step: its stream broke and begins again."""

    message_id: str
    reason: str


class DecisionRefused(AgentEvent, frozen=True, tag="decision_refused"):
    """A decision that changed nothing, and why."""

    target_id: str
    decision_id: str
    reason: str


class InferenceComplete(AgentEvent, frozen=True, tag="inference_complete"):
    model: str
    duration_ms: int
    usage: TokenUsage | None = None


class StateSnapshot(AgentEvent, frozen=True, tag="state_snapshot"):
    snapshot: JsonObject


class StateDelta(AgentEvent, frozen=True, tag="state_delta"):
    """`delta` is a list of RFC 6902 operations."""

    delta: list[JsonObject]


class MessagesSnapshot(AgentEvent, frozen=True, tag="messages_snapshot"):
    messages: list[JsonObject]


class ActivitySnapshot(AgentEvent, frozen=True, tag="activity_snapshot"):
    message_id: str
    activity_type: str
    content: JsonObject
    replace: bool | None = None


class ActivityDelta(AgentEvent, frozen=True, tag="activity_delta"):
    message_id: str
    activity_type: str
    patch: list[JsonObject]


class ErrorEvent(AgentEvent, frozen=True, tag="error"):
    """`code` is ``LLM_ERROR``, ``STATE_ERROR``, ``COMMIT_ERROR`` or absent."""

    message: str
    code: str | None = None


STREAMED: tuple[type[AgentEvent], ...] = (
    TextDelta,
    ReasoningDelta,
    ReasoningEncryptedValue,
    ToolCallStart,
    ToolCallDelta,
    ToolCallCancelled,
    StreamReset,
    ActivitySnapshot,
    ActivityDelta,
)
"""What may be told before it is durable: deltas and activity.  Everything else waits for its commit."""

AnyEvent = (
    RunStart | RunFinish | StepStart | StepEnd
    | TextDelta | ReasoningDelta | ReasoningEncryptedValue
    | ToolCallStart | ToolCallDelta | ToolCallReady | ToolCallDone | ToolCallResumed | ToolCallCancelled
    | StreamReset | DecisionRefused | InferenceComplete
    | StateSnapshot | StateDelta | MessagesSnapshot | ActivitySnapshot | ActivityDelta | ErrorEvent
)  # fmt: skip


class Envelope(msgspec.Struct, frozen=True):
    """One event with its place.  `seq` starts at 0 per run and grows by 1; `step_id` only inside a step."""

    run_id: str
    thread_id: str
    seq: int
    timestamp_ms: int
    event: AnyEvent
    step_id: str | None = None

    def to_wire(self) -> JsonObject:
        """Give the JSON object of §13.1; `data` is left out when it is empty."""
        data: JsonObject = msgspec.to_builtins(self.event)
        wire: JsonObject = {
            "type": data.pop("type"),
            "run_id": self.run_id,
            "thread_id": self.thread_id,
            "seq": self.seq,
            "timestamp_ms": self.timestamp_ms,
        }
        if self.step_id is not None:
            wire["step_id"] = self.step_id
        if data:
            wire["data"] = data
        return wire

    @classmethod
    def from_wire(cls, wire: JsonObject) -> "Envelope":
        """Read what `to_wire` gave.

        Raises:
            msgspec.ValidationError: an unknown type, or a field that does not fit.
        """
        event: AnyEvent = msgspec.convert({**wire.get("data", {}), "type": wire["type"]}, AnyEvent)
        return cls(wire["run_id"], wire["thread_id"], wire["seq"], wire["timestamp_ms"], event, wire.get("step_id"))


class EventSink(Protocol):
    """Where a run's events go, in order; it numbers them.  It may fail without harming the run."""

    def emit(self, event: AnyEvent, step_id: str | None) -> None: ...


class Envelopes:
    """Numbers one run's events from 0 and passes them on."""

    def __init__(
        self,
        run_id: str,
        thread_id: str,
        deliver: Callable[[Envelope], None],
        *,
        now_ms: Callable[[], int],
        seq: int = 0,
    ) -> None:
        self.run_id, self.thread_id, self.seq = run_id, thread_id, seq
        self._deliver, self._now_ms = deliver, now_ms

    def emit(self, event: AnyEvent, step_id: str | None) -> None:
        envelope = Envelope(self.run_id, self.thread_id, self.seq, self._now_ms(), event, step_id)
        self.seq += 1
        self._deliver(envelope)
