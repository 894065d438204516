"""Why a turn or a tool was stopped by the session itself."""

from __future__ import annotations

from typing import Any

from techrevati.runtime.permissions import PermissionOutcome


class TurnTimeoutError(Exception):
    """The deadline of a turn, or of a group of tools, passed."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(f"turn exceeded timeout of {timeout_seconds:.3f}s")
        self.timeout_seconds = timeout_seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.timeout_seconds,)


class MaxIterationsExceededError(Exception):
    """The session has used up its turns."""

    def __init__(self, max_iterations: int) -> None:
        super().__init__(f"session reached max_iterations={max_iterations}: raise the cap or open a new one")
        self.max_iterations = max_iterations

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.max_iterations,)


class PermissionDeniedError(Exception):
    """The role may not use the tool."""

    def __init__(self, outcome: PermissionOutcome) -> None:
        super().__init__(outcome.reason or "permission denied")
        self.outcome = outcome

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.outcome,)
