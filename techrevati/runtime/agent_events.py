"""What agents tell the outside: one event, its name, its status, its failure class.

session ──AgentEvent──▶ sink ──to_dict / to_json / to_otel_attributes──▶ wherever
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from techrevati.runtime._timestamp import iso_now


class AgentEventName(str, Enum):  # noqa: UP042 - callers rely on plain-Enum str()
    """Dotted name of an event; the last segment is its short type."""

    AGENT_STARTED = "agent.started"
    AGENT_READY = "agent.ready"
    AGENT_BLOCKED = "agent.blocked"
    AGENT_TOOL_CALLED = "agent.tool_called"
    AGENT_TOOL_COMPLETED = "agent.tool_completed"
    AGENT_COMPLETED = "agent.completed"
    AGENT_FAILED = "agent.failed"
    PHASE_STARTED = "phase.started"
    PHASE_COMPLETED = "phase.completed"
    PHASE_GATE_EVALUATED = "phase.gate_evaluated"
    PHASE_GATE_PASSED = "phase.gate_passed"
    PHASE_GATE_FAILED = "phase.gate_failed"
    RECOVERY_ATTEMPTED = "agent.recovery.attempted"
    RECOVERY_SUCCEEDED = "agent.recovery.succeeded"
    RECOVERY_FAILED = "agent.recovery.failed"
    RECOVERY_ESCALATED = "agent.recovery.escalated"
    RECOVERY_PROVIDER_SWITCHED = "agent.recovery.provider_switched"
    HOOK_PRE_TOOL = "hook.pre_tool"
    HOOK_POST_TOOL = "hook.post_tool"


class AgentEventStatus(str, Enum):  # noqa: UP042 - callers rely on plain-Enum str()
    """Where the subject of an event stands."""

    RUNNING = "running"
    READY = "ready"
    BLOCKED = "blocked"
    GREEN = "green"
    RED = "red"
    COMPLETED = "completed"
    FAILED = "failed"


class AgentFailureClass(str, Enum):  # noqa: UP042 - callers rely on plain-Enum str()
    """Why something failed, in ten words that dashboards can group by."""

    LLM_TIMEOUT = "llm_timeout"
    LLM_ERROR = "llm_error"
    TOOL_ERROR = "tool_error"
    CONTEXT_OVERFLOW = "context_overflow"
    RATE_LIMIT = "rate_limit"
    DEPENDENCY_FAILED = "dependency_failed"
    MEMORY_CORRUPTION = "memory_corruption"
    VALIDATION_ERROR = "validation_error"
    PROMPT_REJECTION = "prompt_rejection"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class AgentEvent:
    """One thing that happened, with as much context as was known."""

    event: AgentEventName
    status: AgentEventStatus
    emitted_at: str = field(default_factory=iso_now)
    role: str | None = None
    phase: str | None = None
    project_id: int | None = None
    failure_class: AgentFailureClass | None = None
    detail: str | None = None
    data: dict[str, Any] | None = None

    def with_failure_class(self, fc: AgentFailureClass) -> AgentEvent:
        """A copy that says why."""
        return replace(self, failure_class=fc)

    def with_detail(self, detail: str) -> AgentEvent:
        """A copy with a human-readable detail."""
        return replace(self, detail=detail)

    def with_data(self, data: dict[str, Any]) -> AgentEvent:
        """A copy with structured data."""
        return replace(self, data=data)

    def with_project(self, project_id: int) -> AgentEvent:
        """A copy that belongs to a project."""
        return replace(self, project_id=project_id)

    @classmethod
    def started(cls, role: str, phase: str) -> AgentEvent:
        """An agent began its phase."""
        return cls(AgentEventName.AGENT_STARTED, AgentEventStatus.RUNNING, role=role, phase=phase)

    @classmethod
    def completed(cls, role: str, phase: str, detail: str | None = None) -> AgentEvent:
        """An agent finished its phase."""
        return cls(AgentEventName.AGENT_COMPLETED, AgentEventStatus.COMPLETED, role=role, phase=phase, detail=detail)

    @classmethod
    def failed(cls, role: str, phase: str, failure_class: AgentFailureClass, detail: str | None = None) -> AgentEvent:
        """An agent stopped short of its goal."""
        return cls(
            AgentEventName.AGENT_FAILED,
            AgentEventStatus.FAILED,
            role=role,
            phase=phase,
            failure_class=failure_class,
            detail=detail,
        )

    @classmethod
    def phase_started(cls, phase: str) -> AgentEvent:
        """A phase began."""
        return cls(AgentEventName.PHASE_STARTED, AgentEventStatus.RUNNING, phase=phase)

    @classmethod
    def gate_passed(cls, phase: str, detail: str | None = None) -> AgentEvent:
        """The quality gate of a phase let the work through."""
        return cls(AgentEventName.PHASE_GATE_PASSED, AgentEventStatus.GREEN, phase=phase, detail=detail)

    @classmethod
    def gate_failed(cls, phase: str, detail: str | None = None) -> AgentEvent:
        """The quality gate of a phase held the work back."""
        return cls(AgentEventName.PHASE_GATE_FAILED, AgentEventStatus.RED, phase=phase, detail=detail)

    @classmethod
    def recovery_attempted(cls, role: str, phase: str, detail: str | None = None) -> AgentEvent:
        """A failure was classified and its recipe looked up."""
        return cls(AgentEventName.RECOVERY_ATTEMPTED, AgentEventStatus.RUNNING, role=role, phase=phase, detail=detail)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping: four keys always, the rest only when set."""
        record: dict[str, Any] = {
            "event": self.event.value,
            "type": self.event.value.rsplit(".", 1)[-1],
            "status": self.status.value,
            "emitted_at": self.emitted_at,
        }
        optional = {
            "role": self.role,
            "phase": self.phase,
            "project_id": self.project_id,
            "failure_class": None if self.failure_class is None else self.failure_class.value,
            "detail": self.detail,
            "data": self.data,
        }
        record.update((key, value) for key, value in optional.items() if value is not None)
        return record

    def to_json(self) -> str:
        """`to_dict` as JSON text, non-ASCII characters kept readable."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AgentEvent:
        """Rebuild an event from `to_dict`; the derived ``type`` is ignored.

        Raises:
            ValueError: ``event`` or ``status`` is missing, of the wrong type or unknown.
        """
        event, status = data.get("event"), data.get("status")
        if not isinstance(event, str):
            raise ValueError(f"event field missing or invalid: got {event!r}, want an AgentEventName")
        if not isinstance(status, str):
            raise ValueError(f"status field missing or invalid: got {status!r}, want an AgentEventStatus")
        failure = data.get("failure_class")
        emitted_at = data.get("emitted_at")
        return cls(
            event=AgentEventName(event),
            status=AgentEventStatus(status),
            emitted_at=iso_now() if emitted_at is None else emitted_at,
            role=data.get("role"),
            phase=data.get("phase"),
            project_id=data.get("project_id"),
            failure_class=AgentFailureClass(failure) if isinstance(failure, str) else None,
            detail=data.get("detail"),
            data=data.get("data"),
        )

    @classmethod
    def from_json(cls, s: str) -> AgentEvent:
        """Rebuild an event from `to_json`."""
        return cls.from_dict(json.loads(s))

    def to_otel_attributes(self) -> dict[str, Any]:
        """Flat span attributes; ``data`` stays out, it may be of any shape."""
        attributes: dict[str, Any] = {
            "agent.event": self.event.value,
            "agent.event.status": self.status.value,
            "agent.event.timestamp": self.emitted_at,
        }
        optional = {
            "agent.role": self.role,
            "agent.phase": self.phase,
            "agent.project_id": self.project_id,
            "agent.failure_class": None if self.failure_class is None else self.failure_class.value,
            "agent.detail": self.detail,
        }
        attributes.update((key, value) for key, value in optional.items() if value is not None)
        return attributes
