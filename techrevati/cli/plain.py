"""Events as plain lines, where a live picture has no place: a file, a pipe, a CI log."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from techrevati.cli.events import EventData, EventDict
from techrevati.cli.units import clean, clip, count, dollars, duration

LINE = 160  # characters of what an event says


def plain_line(event: EventDict) -> str | None:
    """Say what happened in one line with the time in UTC, or nothing for what fills a log."""
    kind = event.get("type")
    say = _LINES.get(kind) if isinstance(kind, str) else None
    if say is None:
        return None
    at = EventData(event).number("at")
    stamp = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S") if 0 < at < 1e11 else "--:--:--"
    return f"{stamp}  {clip(clean(say(_Fields(event.get('data')))), LINE)}"


class _Fields(EventData):
    """Fields for a sentence: what is missing reads as a question mark."""

    def __getitem__(self, name: str) -> str:
        return self.text(name) or "?"

    def after(self, mark: str, name: str) -> str:
        """Give the field behind a mark, or nothing at all."""
        text = self.text(name)
        return f"{mark}{text}" if text else ""


def _turn_started(data: _Fields) -> str:
    again = f", attempt {data['attempt']}" if data.number("attempt") > 1 else ""
    return f"{data['role']}: turn {data['turn']} starts{data.after(' on ', 'worker')}{again}"


def _model_called(data: _Fields) -> str:
    tokens = f"{count(data.whole('input_tokens'))} in, {count(data.whole('output_tokens'))} out"
    cost = dollars(data.whole("cost_micros"))
    return f"{data['model']}: {tokens}, {cost}, {duration(data.number('seconds'))}"


def _turn_retry(data: _Fields) -> str:
    attempt = f"attempt {data['attempt']} failed: {data['failure']}{data.after(', ', 'error')}"
    return f"{data['role']}: turn {data['turn']} {attempt}; again{_wait(data)}"


def _wait(data: _Fields) -> str:
    delay = data.number("delay")
    return f" in {duration(delay)}" if delay else ""


def _turn_committed(data: _Fields) -> str:
    took = f", {duration(data.number('seconds'))}" if data.number("seconds") else ""
    return f"{data['role']}: turn {data['turn']} committed, {data['move']}{took}"


_LINES: Mapping[str, Callable[[_Fields], str]] = {
    "run.queued": lambda d: f"run queued for {d['role']}",
    "run.waiting": lambda d: f"run waits: {d['why']}",
    "run.completed": lambda d: "run completed",
    "run.failed": lambda d: f"run failed: {d['error']}",
    "run.cancelled": lambda d: f"run cancelled{d.after(': ', 'reason')}",
    "run.dead": lambda d: f"run is dead: {d['error']}",
    "turn.started": _turn_started,
    "turn.committed": _turn_committed,
    "run.cancelling": lambda d: f"run is being cancelled{d.after(': ', 'reason')}",
    "run.superseded": lambda d: "run gave way to a newer one on its thread",
    "turn.retry": _turn_retry,
    "turn.parked": lambda d: f"{d['role']}: turn {d['turn']} gives its place back: {d['why']}",
    "turn.released": lambda d: f"{d['role']}: turn {d['turn']} goes back, its worker drains",
    "turn.expired": lambda d: f"{d['role']}: turn {d['turn']} lost its worker; it runs again",
    "model.called": _model_called,
    "handoff.requested": lambda d: f"{d['source']} hands off to {d['target']}{d.after(': ', 'reason')}",
    "gate.state": lambda d: f"breaker of {d['gate']}: {d['state']}",
    "progress": lambda d: f"{d['label']}: {d.number('done'):g} of {d.number('total'):g}",
}
