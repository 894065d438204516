"""What the two clients share beyond building calls: results."""

from typing import Any

from techrevati.runtime.errors import TechrevatiError
from techrevati.store.records import RunRecord, Status


class NotFinished(TechrevatiError, TimeoutError):
    """The run had not ended when the caller's patience did; it goes on."""

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(run_id, status)
        self.run_id, self.status = run_id, status

    def __str__(self) -> str:
        return f"run {self.run_id} is still {self.status}; it goes on, ask again"


class RunFailed(TechrevatiError):
    """The run ended without a result."""

    def __init__(self, run_id: str, status: str, error: Any) -> None:
        super().__init__(run_id, status, error)
        self.run_id, self.status, self.error = run_id, status, error

    def __str__(self) -> str:
        what = self.error.get("message", self.error) if isinstance(self.error, dict) else self.error
        hint = "; fix the cause, then `techrevati retry` it" if self.status == "dead" else ""
        return f"run {self.run_id} is {self.status}: {what or 'no reason was given'}{hint}"


def output_of(record: RunRecord) -> Any:
    """Give a terminal run's output.

    Raises:
        RunFailed: it has none.
    """
    if record.status is Status.COMPLETED:
        return record.output
    raise RunFailed(record.run_id, record.status.value, record.error or record.cancelling)
