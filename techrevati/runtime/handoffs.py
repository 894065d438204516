"""A handoff: a finished worker names its successor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from techrevati.runtime._timestamp import iso_now


@dataclass(frozen=True)
class Handoff:
    """Who passes the work to whom, why, and with what context."""

    source_role: str
    target_role: str
    phase: str
    reason: str
    context: dict[str, Any] = field(default_factory=dict)
    project_id: int | None = None
    target_worker_id: str = ""
    created_at: str = field(default_factory=iso_now)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping; the context is a copy."""
        return {
            "source_role": self.source_role,
            "target_role": self.target_role,
            "phase": self.phase,
            "reason": self.reason,
            "context": dict(self.context),
            "project_id": self.project_id,
            "target_worker_id": self.target_worker_id,
            "created_at": self.created_at,
        }
