"""One sink in front of several: each gets everything, whatever happens to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from techrevati.runtime.agent_events import AgentEvent
from techrevati.runtime.sinks import EventSink, UsageSink
from techrevati.runtime.usage_tracking import UsageSnapshot


def _tell_all(what: str, calls: Iterable[Callable[[], None]]) -> None:
    errors: list[Exception] = []
    for call in calls:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - raised below, once everybody was told
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"{len(errors)} {what} sinks failed", errors)


class FanOutEventSink:
    """Passes events to every sink, in order.

    Raises:
        ExceptionGroup: what the failing ones raised, after all were told.  A session logs it.
    """

    def __init__(self, *sinks: EventSink) -> None:
        self.sinks = sinks

    def emit(self, event: AgentEvent) -> None:
        """To everyone."""
        _tell_all("event", [partial(sink.emit, event) for sink in self.sinks])


class FanOutUsageSink:
    """Passes usage to every sink, in order.

    Raises:
        ExceptionGroup: what the failing ones raised, after all were told.  A session logs it.
    """

    def __init__(self, *sinks: UsageSink) -> None:
        self.sinks = sinks

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        """To everyone."""
        _tell_all("usage", [partial(sink.record, model, usage, cost_usd) for sink in self.sinks])
