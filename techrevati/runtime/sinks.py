"""Where events and usage go: protocols, the sinks that discard, the rings that keep the latest."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from techrevati.runtime.agent_events import AgentEvent
from techrevati.runtime.usage_tracking import UsageSnapshot

DEFAULT_RING_CAPACITY = 1000


@runtime_checkable
class EventSink(Protocol):
    """Takes events.  Called synchronously, in async sessions too."""

    def emit(self, event: AgentEvent) -> None: ...


@runtime_checkable
class UsageSink(Protocol):
    """Takes the usage and cost of each turn.  Called synchronously, in async sessions too."""

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None: ...


@dataclass
class NoopEventSink:
    """Discards events."""

    def emit(self, event: AgentEvent) -> None:
        """Nothing."""


@dataclass
class NoopUsageSink:
    """Discards usage."""

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        """Nothing."""


def _check_capacity(capacity: int) -> None:
    if capacity < 0:
        raise ValueError(f"ring capacity must be >= 0, got {capacity}")


@dataclass
class RingBufferEventSink:
    """Keeps the latest `capacity` events.  Safe for threads: a deque appends in one step."""

    capacity: int = DEFAULT_RING_CAPACITY

    def __post_init__(self) -> None:
        _check_capacity(self.capacity)
        self._ring: deque[AgentEvent] = deque(maxlen=self.capacity)

    def emit(self, event: AgentEvent) -> None:
        """Keep it, dropping the oldest when full."""
        self._ring.append(event)

    @property
    def events(self) -> list[AgentEvent]:
        """The very objects emitted, oldest first."""
        return list(self._ring)

    def clear(self) -> None:
        """Forget them all."""
        self._ring.clear()


@dataclass
class RingBufferUsageSink:
    """Keeps the latest `capacity` usage records.  Safe for threads."""

    capacity: int = DEFAULT_RING_CAPACITY

    def __post_init__(self) -> None:
        _check_capacity(self.capacity)
        self._ring: deque[tuple[str, UsageSnapshot, float]] = deque(maxlen=self.capacity)

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        """Keep it, dropping the oldest when full."""
        self._ring.append((model, usage, cost_usd))

    @property
    def records(self) -> list[tuple[str, UsageSnapshot, float]]:
        """(model, usage, cost in USD), oldest first."""
        return list(self._ring)

    def clear(self) -> None:
        """Forget them all."""
        self._ring.clear()
