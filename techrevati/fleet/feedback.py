"""What a provider says about its limits, read from the headers of its answer.  Pure.

    headers ──read──▶ Feedback: requests, tokens, … and when to come back ──▶ the shared gate

OpenAI and those who speak its API send ``x-ratelimit-*`` with durations, Anthropic ``anthropic-ratelimit-*`` with
moments; both send ``retry-after``.  What cannot be read is taken as not said: a header never fails a call.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 86_400.0
"""No wait is believed beyond a day (s): one looks again then."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_NAMES = {"requests": "requests", "tokens": "tokens", "input_tokens": "input-tokens", "output_tokens": "output-tokens"}


@dataclass(frozen=True, slots=True)
class Allowance:
    """One limit: its size, what is left of it, and in how many seconds it is whole again; None where not said."""

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """The limits one answer told of; `retry_after` (s) is the provider's wish that all stay away so long.

    `tokens` counts input and output together.
    """

    requests: Allowance | None = None
    tokens: Allowance | None = None
    input_tokens: Allowance | None = None
    output_tokens: Allowance | None = None
    retry_after: float | None = None

    def __bool__(self) -> bool:
        """Whether anything was said."""
        return self != SILENT


SILENT = Feedback()


def read(headers: Mapping[str, str], now: float) -> Feedback:
    """Read the limits from an answer's headers; `now` is the wall clock (s).

    Moments are measured from the answer's own ``date`` where it has one, so the two clocks need not agree.
    """
    said = {name.lower(): value.strip() for name, value in headers.items()}
    start = _moment(said.get("date", ""))
    since = now if start is None else start
    found = {field: _allowance(said, name, since) for field, name in _NAMES.items()}
    return Feedback(**found, retry_after=_retry_after(said, since))


def duration(text: str) -> float | None:
    """Read seconds: ``1m30s``, ``20ms``, or a plain number; None for anything else."""
    try:
        return _believed(float(text))
    except ValueError:
        pass
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return _believed(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _retry_after(said: Mapping[str, str], since: float) -> float | None:
    if (wait := _number(said.get("retry-after-ms"))) is not None:
        return _believed(wait / 1000)
    text = said.get("retry-after", "")
    if (wait := _number(text)) is not None:
        return _believed(wait)
    moment = _moment(text)
    return None if moment is None else _believed(max(0.0, moment - since))


def _allowance(said: Mapping[str, str], name: str, since: float) -> Allowance | None:
    theirs = f"anthropic-ratelimit-{name}"
    limit = _count(said.get(f"{theirs}-limit", said.get(f"x-ratelimit-limit-{name}")))
    remaining = _count(said.get(f"{theirs}-remaining", said.get(f"x-ratelimit-remaining-{name}")))
    moment = _moment(said.get(f"{theirs}-reset", ""))
    reset = duration(said.get(f"x-ratelimit-reset-{name}", "")) if moment is None else _believed(max(0, moment - since))
    if limit is None and remaining is None and reset is None:
        return None
    return Allowance(limit, remaining, reset)


def _moment(text: str) -> float | None:
    """Read a moment as seconds since the epoch: RFC 3339 or an HTTP date."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None


def _believed(wait: float) -> float | None:
    return min(wait, LONGEST) if wait >= 0 and not math.isnan(wait) else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _count(text: str | None) -> int | None:
    value = _number(text)
    return None if value is None else max(0, int(value))
