"""How coordinators share the partitions."""

from hypothesis import given
from hypothesis import strategies as st

from techrevati.fleet.sharing import share


def test_one_alone_takes_all() -> None:
    assert share(4, [], "a", []) == ([0, 1, 2, 3], [])


def test_who_holds_more_than_a_fair_share_gives_back() -> None:
    assert share(4, ["a", "b"], "a", [0, 1, 2, 3]) == ([], [2, 3])


def test_two_that_come_up_together_try_different_ones() -> None:
    first, second = (share(4, ["a", "b"], me, [])[0] for me in "ab")
    assert sorted(first + second) == [0, 1, 2, 3]


@given(st.integers(1, 64), st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=9))
def test_members_never_want_less_together_than_there_is(partitions: int, members: set[str]) -> None:
    fair = -(-partitions // len(members))
    wanted = [share(partitions, members, me, []) for me in members]
    assert all(len(take) == fair and not give for take, give in wanted)
    assert {number for take, _ in wanted for number in take} == set(range(partitions))


@given(st.integers(1, 32), st.sets(st.integers(0, 31)), st.integers(1, 6))
def test_what_is_held_is_kept_up_to_the_share(partitions: int, held: set[int], others: int) -> None:
    mine = sorted(number for number in held if number < partitions)
    take, give = share(partitions, [f"m{n}" for n in range(others)], "me", mine)
    fair = -(-partitions // (others + 1))
    assert len(mine) + len(take) - len(give) == min(fair, partitions)
    assert not {*take} & {*mine} and {*give} <= {*mine}
