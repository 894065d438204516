"""Why a run ended, and how that is written down.

| type | run status / done reason | run record code / detail |
| natural_end | done / natural | natural |
| behavior_requested | done / behavior_requested | behavior_requested |
| stopped {code, detail?} | done / stopped:<code> | code, lower-cased / detail |
| cancelled | done / cancelled | cancelled |
| suspended | waiting / - | input_required |
| error message | done / error | error / message |
"""

from typing import Any

import msgspec


class StopReasonDetail(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which stop condition fired, and on what."""

    code: str
    detail: str | None = None


class TerminationReason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Wire form ``{"type": …, "value"?: …}``; make one with the constructors below."""

    type: str
    value: Any = None

    @property
    def stop(self) -> StopReasonDetail | None:
        """Give the stop condition's code and detail, of ``stopped`` only."""
        return msgspec.convert(self.value, StopReasonDetail) if self.type == "stopped" else None

    @property
    def status(self) -> str:
        return "waiting" if self.type == "suspended" else "done"

    @property
    def done_reason(self) -> str | None:
        if self.type == "suspended":
            return None
        stop = self.stop
        if stop is not None:
            return f"stopped:{stop.code}"
        return "natural" if self.type == "natural_end" else self.type

    @property
    def code(self) -> str:
        """Give the run record's `termination_code`."""
        stop = self.stop
        if stop is not None:
            return stop.code.lower()
        return {"natural_end": "natural", "suspended": "input_required"}.get(self.type, self.type)

    @property
    def detail(self) -> str | None:
        """Give the run record's `termination_detail`."""
        stop = self.stop
        return stop.detail if stop is not None else self.value if self.type == "error" else None


NATURAL_END = TerminationReason("natural_end")
BEHAVIOR_REQUESTED = TerminationReason("behavior_requested")
CANCELLED = TerminationReason("cancelled")
SUSPENDED = TerminationReason("suspended")


def stopped(code: str, detail: str | None = None) -> TerminationReason:
    return TerminationReason("stopped", {"code": code} if detail is None else {"code": code, "detail": detail})


def failed(message: str) -> TerminationReason:
    return TerminationReason("error", message)


def read_termination(wire: dict[str, Any]) -> TerminationReason:
    """Read the wire form; the older name ``plugin_requested`` means ``behavior_requested``."""
    reason = msgspec.convert(wire, TerminationReason)
    return BEHAVIOR_REQUESTED if reason.type == "plugin_requested" else reason
