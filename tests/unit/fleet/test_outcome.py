"""What the end of a group of tasks means for a turn."""

import asyncio

import pytest

from techrevati.fleet.outcome import Parked, alone, parked_in


def group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("tasks", list(errors))


def test_of_several_parks_the_one_that_is_over_first_counts() -> None:
    soon, late = Parked(1.0, "gate:a"), Parked(9.0, "gate:b")
    assert parked_in(soon) is soon
    assert parked_in(group(late, soon)) is soon
    assert parked_in(group(late, group(soon))) is soon


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), asyncio.CancelledError()])
def test_another_error_beside_a_park_is_that_error(error: BaseException) -> None:
    assert parked_in(error) is None
    mixed = group(Parked(1.0, "gate:a"), error)
    assert parked_in(mixed) is None and alone(mixed) is error


def test_a_group_with_one_error_is_that_error_and_with_two_stays_a_group() -> None:
    one, two = ValueError("one"), ValueError("two")
    assert alone(one) is one and alone(group(group(one))) is one
    both = alone(group(one, two))
    assert isinstance(both, BaseExceptionGroup) and both.exceptions == (one, two)
