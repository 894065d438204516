"""What providers say about their limits."""

import pickle
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.fleet.feedback import LONGEST, SILENT, Allowance, Feedback, duration, read

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m30s", 90.0),
        ("20ms", 0.02),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("1d", 86_400.0),
        ("0s", 0.0),
        ("1.5", 1.5),
        ("250µs", 0.00025),
        ("", None),
        ("soon", None),
        ("1m30", None),
        ("-3", None),
        ("nan", None),
        ("1e300", LONGEST),
        ("999h", LONGEST),
    ],
)
def test_durations_are_read_as_the_providers_write_them(text: str, seconds: float | None) -> None:
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_retry_after_comes_in_three_forms() -> None:
    assert read({"Retry-After": "7"}, NOW).retry_after == 7.0
    assert read({"retry-after": formatdate(NOW + 90, usegmt=True)}, NOW).retry_after == pytest.approx(90)
    assert read({"retry-after-ms": "1500", "retry-after": "2"}, NOW).retry_after == 1.5
    assert read({"retry-after": formatdate(NOW - 90, usegmt=True)}, NOW).retry_after == 0.0
    assert read({"retry-after": "whenever"}, NOW) is not None
    assert read({"retry-after": "inf"}, NOW).retry_after is None


def test_moments_are_measured_by_the_providers_own_clock() -> None:
    headers = {"date": formatdate(NOW + 3600, usegmt=True), "retry-after": formatdate(NOW + 3605, usegmt=True)}
    assert read(headers, NOW).retry_after == pytest.approx(5)


def test_openai_says_requests_and_tokens_with_durations() -> None:
    said = read(
        {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "12",
            "x-ratelimit-reset-tokens": "1m30s",
        },
        NOW,
    )
    assert said == Feedback(requests=Allowance(500, 0, 0.12), tokens=Allowance(30_000, 12, 90.0))


def test_anthropic_says_four_limits_with_moments() -> None:
    reset = "2027-01-15T08:01:00Z"  # NOW is 08:00:00 of that day
    headers = {
        f"anthropic-ratelimit-{name}-{part}": value
        for name in ("requests", "tokens", "input-tokens", "output-tokens")
        for part, value in {"limit": "1000", "remaining": "7", "reset": reset}.items()
    }
    whole = Allowance(1000, 7, 60.0)
    assert read(headers, NOW) == Feedback(whole, whole, whole, whole)


def test_nothing_said_is_silent_and_survives_a_queue() -> None:
    assert read({"content-type": "text/event-stream"}, NOW) == SILENT and not SILENT
    said = read({"retry-after": "0"}, NOW)
    assert said and pickle.loads(pickle.dumps(said)) == said


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "retry-after",
                "retry-after-ms",
                "date",
                "x-ratelimit-limit-requests",
                "x-ratelimit-reset-tokens",
                "anthropic-ratelimit-requests-reset",
                "anthropic-ratelimit-tokens-remaining",
            ]
        ),
        st.text(max_size=20) | st.integers().map(str) | st.floats().map(str),
    )
)
def test_no_header_can_fail_a_call(headers: dict[str, str]) -> None:
    said = read(headers, NOW)
    waits = [said.retry_after, *(one.reset for one in (said.requests, said.tokens) if one is not None)]
    assert all(wait is None or 0 <= wait <= LONGEST for wait in waits)
