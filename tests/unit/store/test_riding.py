"""Which claims ride on which commits, and which wait for one."""

import pytest

from techrevati.store import calls, riding
from techrevati.store.calls import Call, ClaimSpec, CommitSpec
from techrevati.store.keys import PartitionKeys

HERE, THERE = PartitionKeys("news", 0), PartitionKeys("news", 1)


def claim(keys: PartitionKeys = HERE, role: str = "writer") -> Call[object]:
    spec = ClaimSpec(role=role, claim_id="c9", worker="w1", ttl_us=15_000_000, lane_free=False, inline=7)
    return calls.claim(keys, spec)  # type: ignore[return-value]


def commit(keys: PartitionKeys = HERE, role: str = "writer", messages: tuple[str, ...] = ()) -> Call[object]:
    spec = CommitSpec(run_id="r1", token="1.c1", move="continue", worker="w1", role=role, messages=messages)
    return calls.commit(keys, spec)  # type: ignore[return-value]


def test_a_claim_rides_whichever_came_first() -> None:
    assert riding.pairs([claim(), commit()]) == {1: 0}
    assert riding.pairs([commit(), claim()]) == {0: 1}


def test_each_commit_carries_one_claim_and_each_claim_rides_once() -> None:
    batch = [claim(), claim(), commit(), None, commit(), claim(), commit()]
    met = riding.pairs(batch)
    assert sorted(met) == [2, 4, 6]
    assert sorted(met.values()) == [0, 1, 5]


@pytest.mark.parametrize("other", [claim(THERE), claim(role="editor")])
def test_a_claim_of_another_partition_or_role_does_not_ride(other: Call[object]) -> None:
    assert riding.pairs([commit(), other]) == {}


def test_a_commit_that_claims_already_carries_nobody() -> None:
    spec = CommitSpec(run_id="r1", token="1.c1", move="continue", worker="w1", role="writer")
    then = ClaimSpec(role="writer", claim_id="c2", worker="w1", ttl_us=1)
    assert riding.pairs([calls.commit(HERE, spec, then), claim()]) == {}


def test_the_pair_says_what_each_said() -> None:
    fused = riding.together(commit(messages=('{"m":1}',)), claim())
    spec = CommitSpec(run_id="r1", token="1.c1", move="continue", worker="w1", messages=('{"m":1}',))
    then = ClaimSpec(role="writer", claim_id="c9", worker="w1", ttl_us=15_000_000, lane_free=False, inline=7)
    assert list(fused.args) == list(calls.commit(HERE, spec, then).args)


def test_the_answer_is_taken_apart() -> None:
    assert riding.answers([1, ["writer"], "3", "ready", ["grant"]]) == (
        [1, ["writer"], "3", "ready", 0],
        [1, [], ["grant"]],
    )
    assert riding.answers([1, [], "3", "ready", 2]) == ([1, [], "3", "ready", 0], [0, [], 2])
    assert riding.answers([-1, [], "token"]) == ([-1, [], "token"], None)


def test_a_crowd_of_claims_with_nothing_to_ride_on_goes_in_two_halves() -> None:
    crowd: list[Call[object] | None] = [claim() for _ in range(9)]
    assert riding.lonely(crowd, {}) == [4, 5, 6, 7, 8]
    assert riding.lonely(crowd[:7], {}) == []
    batch = [*crowd, *(commit() for _ in range(4))]
    assert riding.lonely(batch, riding.pairs(batch)) == []
