"""Which session an event comes from, for sinks that care.

Events carry no session id, and sinks may be wrapped; so a session says who it is in a context
variable while it emits.  Events emitted by hand have no scope.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """The emitting session, and whether a completed or failed event ends it."""

    session_id: str
    ends: bool


emitting: ContextVar[Scope | None] = ContextVar("techrevati_emitting", default=None)
