"""Numbers as a person reads them."""

import pytest

from techrevati.cli.units import clean, clip, count, dollars, duration


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1_000, "1.0k"), (9_949, "9.9k"), (9_960, "10k"), (999_499, "999k"),
     (999_600, "1.0M"), (12_345_678, "12M")],
)  # fmt: skip
def test_counts_stay_short(number: int, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1.0, "0.0s"), (0.04, "0.0s"), (12.34, "12.3s"), (59.96, "1m00s"), (125.0, "2m05s"),
     (3_725.0, "1h02m"), (273_600.0, "3d04h")],
)  # fmt: skip
def test_durations_keep_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_money_is_dollars() -> None:
    assert [dollars(n) for n in (0, 1_234, 12_345_678)] == ["$0.0000", "$0.0012", "$12.35"]


def test_clean_leaves_one_harmless_line() -> None:
    assert clean("a\x1b[31m b\x1b]8;;http://x\x07\n\tc\x00\u200e") == "a b c"


def test_clip_marks_what_is_gone() -> None:
    assert [clip("tide", 4), clip("tides", 4)] == ["tide", "tid…"]
