"""What a gate's steps ask of a shell that may block or await.

    admit(...) yields Run(call) │ Sleep(s) │ Listen(ticket) ──▶ the shell does it, sends back what came ──▶ Admission

One course of events for both worlds: `Gate` and `AsyncGate` differ by one `await`.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from techrevati.store.calls import Call
from techrevati.store.gates.waiting import Ticket

T = TypeVar("T")


@dataclass(slots=True)
class Run:
    """Say this to Redis, and send back what it means."""

    call: Call[Any]


@dataclass(slots=True)
class Sleep:
    """Wait: until a time of the core's monotonic clock, some seconds from now."""

    until: float
    seconds: float


@dataclass(slots=True)
class Listen:
    """Wait as `Sleep` does, but no longer than until the ticket is told something; send back what, or None."""

    ticket: Ticket
    until: float
    seconds: float


Effect = Run | Sleep | Listen
Steps = Generator[Effect, Any, T]
