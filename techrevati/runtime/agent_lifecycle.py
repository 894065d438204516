"""The life of a worker, and the registry that holds the workers of a process.

IDLE ─▶ INITIALIZING ─▶ RUNNING ◀─▶ WAITING_FOR_INPUT
                          └─▶ COMPLETED │ FAILED │ CANCELLED   (from anywhere, the last two)
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

from techrevati.runtime._timestamp import iso_now

logger = logging.getLogger("techrevati.runtime.lifecycle")
logger.addHandler(logging.NullHandler())


class AgentStatus(str, Enum):  # noqa: UP042 - callers rely on plain-Enum str()
    """Where a worker stands; the last three are final."""

    IDLE = "idle"
    INITIALIZING = "initializing"
    WAITING_FOR_INPUT = "waiting_for_input"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_STOPPED = frozenset({AgentStatus.FAILED, AgentStatus.CANCELLED})
_NEXT = MappingProxyType(
    {
        AgentStatus.IDLE: _STOPPED | {AgentStatus.INITIALIZING},
        AgentStatus.INITIALIZING: _STOPPED | {AgentStatus.WAITING_FOR_INPUT, AgentStatus.RUNNING},
        AgentStatus.WAITING_FOR_INPUT: _STOPPED | {AgentStatus.RUNNING},
        AgentStatus.RUNNING: _STOPPED | {AgentStatus.WAITING_FOR_INPUT, AgentStatus.COMPLETED},
        AgentStatus.COMPLETED: frozenset[AgentStatus](),
        AgentStatus.FAILED: frozenset[AgentStatus](),
        AgentStatus.CANCELLED: frozenset[AgentStatus](),
    }
)


class InvalidTransitionError(Exception):
    """A worker was asked to go where its status does not lead."""

    def __init__(self, current: AgentStatus, target: AgentStatus) -> None:
        super().__init__(f"Invalid transition: {current.value} → {target.value}")
        self.current, self.target = current, target

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.current, self.target)


def check_transition(current: AgentStatus, target: AgentStatus) -> None:
    """Refuse a step the table does not hold; self-transitions included.

    Raises:
        InvalidTransitionError: `target` does not follow `current`.
    """
    if target not in _NEXT[current]:
        raise InvalidTransitionError(current, target)


@dataclass(frozen=True)
class AgentWorkerEvent:
    """One line of a worker's log; `seq` counts from 1."""

    seq: int
    kind: str
    status: str
    detail: str | None
    timestamp: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping; ``detail`` only when there is one."""
        record: dict[str, Any] = {
            "seq": self.seq,
            "kind": self.kind,
            "status": self.status,
            "timestamp": self.timestamp,
        }
        if self.detail:
            record["detail"] = self.detail
        return record


@dataclass
class AgentWorker:
    """One agent at work on one phase.

    `retry_count` and `provider_used` belong to the caller: the runtime never writes them.
    """

    worker_id: str
    role: str
    phase: str
    project_id: int | None = None
    status: AgentStatus = AgentStatus.IDLE
    events: list[AgentWorkerEvent] = field(default_factory=list)
    retry_count: int = 0
    last_error: dict[str, Any] | None = None
    provider_used: str | None = None
    created_at: str = field(default_factory=iso_now)
    updated_at: str = field(default_factory=iso_now)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow."""
        return not _NEXT[self.status]

    def transition(self, new_status: AgentStatus, detail: str | None = None) -> AgentWorkerEvent:
        """Move on and log it.

        Raises:
            InvalidTransitionError: `new_status` does not follow the current one.
        """
        check_transition(self.status, new_status)
        event = AgentWorkerEvent(
            seq=len(self.events) + 1,
            kind=new_status.value,
            status=new_status.value,
            detail=detail,
            timestamp=iso_now(),
        )
        self.events.append(event)
        self.status, self.updated_at = new_status, event.timestamp
        if new_status is AgentStatus.FAILED and detail:
            self.last_error = {"message": detail, "timestamp": event.timestamp}
        return event

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping of everything, the log included."""
        return {
            "worker_id": self.worker_id,
            "role": self.role,
            "phase": self.phase,
            "project_id": self.project_id,
            "status": self.status.value,
            "retry_count": self.retry_count,
            "last_error": self.last_error,
            "provider_used": self.provider_used,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "events": [event.to_dict() for event in self.events],
        }


class AgentRegistry:
    """The workers of this process, by id, in creation order.  Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: dict[str, AgentWorker] = {}

    def create(self, role: str, phase: str, project_id: int | None = None) -> AgentWorker:
        """Register a new `IDLE` worker."""
        worker_id = f"{role}-{phase}-{uuid.uuid4().hex[:8]}"
        with self._lock:
            # Eight hex digits repeat now and then; a busy id must not lose its worker.
            while worker_id in self._workers:
                worker_id = f"{role}-{phase}-{uuid.uuid4().hex[:8]}"
            worker = AgentWorker(worker_id, role, phase, project_id)
            self._workers[worker_id] = worker
        return worker

    def get(self, worker_id: str) -> AgentWorker | None:
        """The worker of that id, if known."""
        with self._lock:
            return self._workers.get(worker_id)

    def transition(self, worker_id: str, status: AgentStatus, detail: str | None = None) -> AgentWorker:
        """Move a worker on.

        Raises:
            KeyError: the id is unknown.
            InvalidTransitionError: `status` does not follow the worker's current one.
        """
        with self._lock:
            worker = self._workers.get(worker_id)
            if worker is None:
                raise KeyError(f"Worker not found: {worker_id}")
            worker.transition(status, detail)
            if worker.is_terminal:
                self._on_terminal(worker)
            return worker

    def list_active(self) -> list[AgentWorker]:
        """Workers that are not done."""
        with self._lock:
            return [worker for worker in self._workers.values() if not worker.is_terminal]

    def get_by_role_phase(self, role: str, phase: str) -> AgentWorker | None:
        """The first worker of that role and phase that is not done."""
        with self._lock:
            for worker in self._workers.values():
                if worker.role == role and worker.phase == phase and not worker.is_terminal:
                    return worker
        return None

    def get_by_project(self, project_id: int) -> list[AgentWorker]:
        """Every worker of a project, finished ones too."""
        with self._lock:
            return [worker for worker in self._workers.values() if worker.project_id == project_id]

    def clear(self) -> None:
        """Forget every worker."""
        with self._lock:
            self._workers.clear()

    def _on_terminal(self, worker: AgentWorker) -> None:
        """Called under the lock when a worker is done; the plain registry keeps it."""


class BoundedAgentRegistry(AgentRegistry):
    """A registry that remembers only the latest finished workers.

    Active workers are always kept; of the finished ones the `keep_finished` most recent stay
    readable, so a process that opens sessions for months does not grow with them.
    """

    def __init__(self, keep_finished: int = 1000) -> None:
        if keep_finished < 0:
            raise ValueError(f"keep_finished must be >= 0, got {keep_finished}")
        super().__init__()
        self._keep = keep_finished
        self._finished: deque[str] = deque()

    def clear(self) -> None:
        """Forget every worker."""
        with self._lock:
            self._workers.clear()
            self._finished.clear()

    def _on_terminal(self, worker: AgentWorker) -> None:
        self._finished.append(worker.worker_id)
        while len(self._finished) > self._keep:
            self._workers.pop(self._finished.popleft(), None)
