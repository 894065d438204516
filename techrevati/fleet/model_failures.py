"""Why a model did not answer, in the runtime's failure classes.

    an SDK's exception ──failed──▶ ModelFailed(model, failure, …) ──▶ retry, another provider, or the dead letter

Both SDKs name their errors alike, so one reading serves both.  By type first, then by the provider's code, then by
status; its words only where a status 400 says too little.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from techrevati.fleet.feedback import SILENT, Feedback, read
from techrevati.fleet.models import RetryLater
from techrevati.runtime.errors import TechrevatiError

_BY_CODE = {
    "context_length_exceeded": "context_overflow",
    "request_too_large": "context_overflow",
    "content_filter": "prompt_rejection",
    "content_policy_violation": "prompt_rejection",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "timeout_error": "llm_timeout",
    # The account's matter, not the moment's: waiting does not mend it.
    "insufficient_quota": "validation_error",
    "billing_hard_limit_reached": "validation_error",
    "billing_error": "validation_error",
    "authentication_error": "validation_error",
    "permission_error": "validation_error",
    "not_found_error": "validation_error",
}
_TOO_LONG = ("context length", "maximum context", "context window", "prompt is too long", "too many tokens")
_OVERLOADED = frozenset({"overloaded_error", "rate_limit_error", "rate_limit_exceeded"})
_NO_CONNECTION = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError"})

ELSEWHERE = frozenset({"rate_limit", "llm_timeout", "llm_error", "dependency_failed"})
"""Failures of one provider that another need not have."""


class ModelFailed(TechrevatiError):
    """A provider did not give a whole answer.

    Attributes:
        failure: one of the runtime's failure classes.
        status: of the HTTP answer, or None.
        retry_after: seconds the provider asks to be left alone, or None.
        spoke: text of this answer had been delivered before it failed.
        throttled: it refused for load or limits, not for what was asked.
        account: the key, the quota or the model's name is at fault: waiting does not help, another provider may.
        made: the provider may have worked on it, to the end for all we know, and may charge for it.
    """

    def __init__(
        self,
        model: str,
        failure: str,
        reason: str,
        status: int | None = None,
        feedback: Feedback = SILENT,
        spoke: bool = False,
        throttled: bool = False,
        account: bool = False,
        made: bool | None = None,
    ) -> None:
        made = status is None if made is None else made
        super().__init__(model, failure, reason, status, feedback, spoke, throttled, account, made)
        self.model, self.failure, self.reason, self.status = model, failure, reason, status
        self.feedback, self.spoke, self.throttled = feedback, spoke, throttled
        self.account, self.made = account, made

    @property
    def retry_after(self) -> float | None:
        return self.feedback.retry_after

    @property
    def elsewhere(self) -> bool:
        """Whether another provider may well answer."""
        return self.account or self.failure in ELSEWHERE

    def __str__(self) -> str:
        status = f" (HTTP {self.status})" if self.status else ""
        after = f"; it asks to be left alone for {self.retry_after:g} s" if self.retry_after else ""
        return f"model {self.model} gave no answer: {self.failure}{status}: {self.reason}{after}"


def class_of(status: int | None, codes: tuple[str, ...], text: str) -> str:
    """Name the failure class of a provider's refusal; `codes` are its ``code`` and ``type``, the closer first."""
    for code in codes:
        if code in _BY_CODE:
            return _BY_CODE[code]
    if status is None:
        return "llm_error"
    if status == 429:
        return "rate_limit"
    if status in (408, 504):
        return "llm_timeout"
    if status >= 500 or status in (409, 425, 499):
        return "llm_error"
    if status == 413 or (status == 400 and any(words in text.lower() for words in _TOO_LONG)):
        return "context_overflow"
    return "prompt_rejection" if status == 400 else "validation_error"


def failed(sdk: Any, model: str, error: Exception, *, spoke: bool, now: float) -> ModelFailed:
    """Read what an SDK (its module) raised; `now` is the wall clock (s)."""
    if isinstance(error, ModelFailed):
        return error
    kinds = {kind.__name__ for kind in type(error).__mro__}
    unsent = False if _never_sent(error) else None
    # The SDKs let their HTTP library's own errors through from inside a stream, and it is not the same in every
    # release: its names are.
    if isinstance(error, sdk.APITimeoutError | TimeoutError) or "TimeoutException" in kinds:
        return ModelFailed(model, "llm_timeout", "no answer in time", spoke=spoke, made=unsent)
    if isinstance(error, sdk.APIConnectionError | ConnectionError) or "TransportError" in kinds:
        return ModelFailed(model, "dependency_failed", _line(error), spoke=spoke, made=unsent)
    if isinstance(error, sdk.APIError):
        return _refused(model, error, spoke, now)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return ModelFailed(model, "llm_error", f"a chunk of its stream is malformed ({_line(error)})", spoke=spoke)
    if isinstance(error, TypeError):
        return ModelFailed(model, "validation_error", f"the call is refused by the SDK: {_line(error)}", made=False)
    return ModelFailed(model, "llm_error", f"{type(error).__name__}: {_line(error)}", spoke=spoke)


def _never_sent(error: BaseException) -> bool:
    """Whether no connection was had, by what the SDK's error was raised from."""
    causes = [error, error.__cause__, error.__context__]
    return any(kind.__name__ in _NO_CONNECTION for cause in causes if cause for kind in type(cause).__mro__)


def _refused(model: str, error: Any, spoke: bool, now: float) -> ModelFailed:
    said = getattr(error, "status_code", None)
    status = said if isinstance(said, int) and said >= 400 else None  # an error inside a stream that began with 200
    codes = _codes(error.body)
    failure = class_of(status, codes, str(error))
    return ModelFailed(
        model,
        failure,
        _line(error),
        status,
        read(getattr(getattr(error, "response", None), "headers", {}), now),
        spoke,
        failure == "rate_limit" or status in (503, 529) or not _OVERLOADED.isdisjoint(codes),
        failure == "validation_error" and status not in (422, None),
    )


def _codes(body: object) -> tuple[str, ...]:
    """Give ``code`` and ``type`` of an error's body, which may wrap them in "error"."""
    found: list[str] = []
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    if isinstance(inner, Mapping):
        found = [str(inner[name]) for name in ("code", "type") if inner.get(name) is not None]
    return tuple(found)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]


def asked_wait(error: BaseException) -> float | None:
    """Give the seconds a provider asked us to wait, if the error says so."""
    match error:
        case RetryLater():
            return error.seconds
        case ModelFailed():
            return error.retry_after
    headers = getattr(getattr(error, "response", None), "headers", None)
    return None if headers is None else read(headers, time.time()).retry_after
