"""What kind of failure an exception is: by type along its causes, else by its words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum


class FailureScenario(str, Enum):  # noqa: UP042 - callers rely on plain-Enum str()
    """Kinds of failure that have a recipe."""

    LLM_TIMEOUT = "llm_timeout"
    LLM_ERROR = "llm_error"
    TOOL_EXECUTION_ERROR = "tool_execution_error"
    CONTEXT_OVERFLOW = "context_overflow"
    DEPENDENCY_TIMEOUT = "dependency_timeout"
    MEMORY_CORRUPTION = "memory_corruption"
    PROVIDER_FAILURE = "provider_failure"


_BY_TYPE: tuple[tuple[type[BaseException], FailureScenario], ...] = (
    (TimeoutError, FailureScenario.LLM_TIMEOUT),
    (ConnectionError, FailureScenario.PROVIDER_FAILURE),
    (json.JSONDecodeError, FailureScenario.MEMORY_CORRUPTION),
)

_BY_WORDS: tuple[tuple[tuple[str, ...], FailureScenario], ...] = (
    (("timeout", "timed out"), FailureScenario.LLM_TIMEOUT),
    (("rate limit", "429", "too many requests"), FailureScenario.LLM_ERROR),
    (
        ("context length", "token limit", "maximum context", "too many tokens", "context_length_exceeded"),
        FailureScenario.CONTEXT_OVERFLOW,
    ),
    (("corrupt", "malformed"), FailureScenario.MEMORY_CORRUPTION),
    (
        ("connection refused", "connection reset", "503", "502", "service unavailable", "bad gateway"),
        FailureScenario.PROVIDER_FAILURE,
    ),
    (("401", "unauthorized", "authentication"), FailureScenario.PROVIDER_FAILURE),
)
_DEPENDENCY_WORDS = ("dependency", "downstream", "upstream", "external service", "dependent")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was raised from, each once, even if the chain is a ring."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        cause = current.__cause__
        current = current.__context__ if cause is None and not current.__suppress_context__ else cause


def _text(error: BaseException) -> str:
    try:
        return str(error).lower()
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure it describes
        return ""


def classify_exception(error: BaseException) -> FailureScenario:
    """Name the scenario of a failure: by type along the chain of causes, else by words.

    Words are looked for in the outermost message only, anywhere, with no word boundaries.
    """
    for link in _causes(error):
        for kind, scenario in _BY_TYPE:
            if isinstance(link, kind):
                return scenario
    text = _text(error)
    for words, scenario in _BY_WORDS:
        if any(word in text for word in words):
            return scenario
    if "tool" in text and ("error" in text or "failed" in text):
        return FailureScenario.TOOL_EXECUTION_ERROR
    if any(word in text for word in _DEPENDENCY_WORDS):
        return FailureScenario.DEPENDENCY_TIMEOUT
    return FailureScenario.LLM_ERROR
