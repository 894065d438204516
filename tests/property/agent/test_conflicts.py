"""Conflicts: the same whoever comes first, and what has none may be applied in any order."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from techrevati.agent.state import (
    Append,
    Delete,
    Document,
    Patch,
    Set,
    StateError,
    apply_all,
    conflicts,
    refusals,
)
from techrevati.agent.state.values import same
from tests.property.agent.documents import PATCHES, VALUES

LISTS = st.lists(VALUES, max_size=3)
TWO_OPS = PATCHES.map(lambda patch: Patch(patch.ops[:2]))


@given(PATCHES, PATCHES)
def test_conflicts_are_symmetric(one: Patch, other: Patch) -> None:
    there = {(found.path, found.kind) for found in conflicts([one, other])}
    back = {(found.path, found.kind) for found in conflicts([other, one])}
    assert there == back


@given(st.lists(PATCHES, max_size=4))
def test_a_batch_conflicts_as_its_pairs_do(patches: list[Patch]) -> None:
    pairs = {
        (first, second, found.path, found.kind)
        for second in range(len(patches))
        for first in range(second)
        for found in conflicts([patches[first], patches[second]])
    }
    assert {(found.first, found.second, found.path, found.kind) for found in conflicts(patches)} == pairs


@given(st.lists(PATCHES, max_size=5))
def test_what_is_not_refused_does_not_conflict(patches: list[Patch]) -> None:
    answers = refusals(patches)
    assert conflicts([patch for patch, refused in zip(patches, answers, strict=True) if refused is None]) == []
    for index, refused in enumerate(answers):
        assert refused is None or (refused.second == index and answers[refused.first] is None)


@given(st.fixed_dictionaries({"a": st.one_of(LISTS, VALUES)}), st.lists(TWO_OPS, min_size=2, max_size=3))
@example({"a": [1, 2, 3]}, [Patch((Delete(("a", 0)),)), Patch((Set(("a", 1), 9),))])
@example({"a": [1, 2, 3]}, [Patch((Delete(("a", 0)),)), Patch((Delete(("a", 1)),))])
@example({"a": [1]}, [Patch((Set(("a", "b"), 1),)), Patch((Set(("a", 0), 2),))])
@example({"a": [1]}, [Patch((Append(("a",), 1),)), Patch((Set(("a", 1), 2),))])
@settings(max_examples=400)
def test_patches_without_conflict_may_come_in_any_order(document: Document, patches: list[Patch]) -> None:
    if conflicts(patches):
        return
    assert same(outcome(document, patches), outcome(document, patches[::-1]))


def outcome(document: Document, patches: list[Patch]) -> Any:
    try:
        return apply_all(document, patches)
    except StateError:
        return "refused"
