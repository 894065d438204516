"""§5.2: commits, batches, previews, going back, pruning."""

from typing import Any

import pytest

from techrevati.agent.state import (
    Conflict,
    ConflictKind,
    Delete,
    GSet,
    Increment,
    LatticeMerge,
    LatticeRegistry,
    Op,
    Patch,
    Path,
    Set,
    StateManager,
    conflicts,
    refusals,
)
from techrevati.agent.state.errors import NoSuchPatch, PatchesConflict, PatchRefused


def patch(*ops: Op) -> Patch:
    return Patch(ops)


def counted(times: int) -> StateManager:
    manager = StateManager({"n": 0})
    for _ in range(times):
        manager.commit(patch(Increment(("n",), 1)))
    return manager


def test_5_2_commit_applies_and_remembers() -> None:
    manager = counted(2)
    assert manager.document == {"n": 2} and len(manager.history) == 2


def test_5_2_a_commit_that_fails_changes_nothing() -> None:
    manager = counted(1)
    before = manager.document
    with pytest.raises(PatchRefused):
        manager.commit(patch(Set(("x",), 1), Increment(("missing",), 1)))
    assert manager.document is before and len(manager.history) == 1


def test_5_2_a_batch_with_a_bad_member_changes_nothing() -> None:
    manager = counted(1)
    with pytest.raises(PatchRefused):
        manager.commit_batch([patch(Set(("x",), 1)), patch(Increment(("missing",), 1))])
    assert manager.document == {"n": 1} and len(manager.history) == 1


def test_5_2_a_batch_whose_members_conflict_is_refused_by_name() -> None:
    manager = StateManager()
    batch = [patch(Set(("x",), 1)), patch(Set(("y",), 1)), patch(Set(("x",), 2))]
    with pytest.raises(PatchesConflict) as caught:
        manager.commit_batch(batch)
    error = caught.value
    assert (error.first, error.second, error.path, error.kind) == (0, 2, ("x",), "ExactMatch")
    assert "patches 0 and 2 both change $.x (ExactMatch)" in str(error)
    assert manager.document == {} and manager.history == ()


def test_5_2_preview_changes_nothing() -> None:
    manager = counted(1)
    assert manager.preview_patch(patch(Set(("n",), 9))) == {"n": 9}
    assert manager.document == {"n": 1} and len(manager.history) == 1


def test_5_2_replay_gives_the_state_after_a_patch() -> None:
    manager = counted(4)
    assert [manager.replay_to(index) for index in range(4)] == [{"n": n} for n in (1, 2, 3, 4)]
    for index in (-1, 4):
        with pytest.raises(NoSuchPatch, match=f"patch {index} is asked for, and the history holds patches 0 to 3"):
            manager.replay_to(index)


def test_5_2_pruning_folds_old_patches_and_says_how_many() -> None:
    manager = counted(5)
    assert manager.prune_history(2) == 3
    assert manager.document == {"n": 5} and [manager.replay_to(0), manager.replay_to(1)] == [{"n": 4}, {"n": 5}]
    assert manager.prune_history(2) == 0 == manager.prune_history(9) and manager.prune_history(0) == 2
    with pytest.raises(ValueError, match="keep_last -1 is refused"):
        manager.prune_history(-1)


def test_5_2_a_registered_lattice_joins_the_members_of_a_batch() -> None:
    manager = StateManager({"seen": [1]})
    batch = [patch(LatticeMerge(("seen",), [1, 2])), patch(LatticeMerge(("seen",), [1, 3]))]
    with pytest.raises(PatchesConflict):
        manager.commit_batch(batch)
    manager.register_lattice(GSet[int], ("seen",))
    assert manager.commit_batch(batch) == {"seen": [1, 2, 3]}
    assert manager.replay_to(0) == {"seen": [1, 2]}


def test_5_2_the_initial_document_is_the_managers_own() -> None:
    mine: dict[str, Any] = {"l": [1]}
    manager = StateManager(mine)
    mine["l"].append(2)
    assert manager.document == {"l": [1]}


EXACT, PREFIX = ConflictKind.EXACT_MATCH, ConflictKind.PREFIX_CONFLICT
JOIN_A = LatticeMerge(("a",), [1])


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (Set(("a",), 1), Set(("a",), 1), (("a",), EXACT)),
        (Set(("a", "b"), 1), Delete(("a", "b")), (("a", "b"), EXACT)),
        (Set(("a",), 1), Set(("a", "b", "c"), 1), (("a",), PREFIX)),
        (Set((), {}), Set(("a", "b"), 1), ((), PREFIX)),
        (Set(("a", "b"), 1), Set(("a", "c"), 1), None),
        (Set(("ab",), 1), Set(("a", "b"), 1), None),
        (Set(("a", 0), 1), Set(("a", 1), 1), None),
        (Delete(("a", 0)), Set(("a", 1), 1), (("a",), PREFIX)),
        (Delete(("a", 0)), Delete(("a", 1)), (("a",), EXACT)),
        (Set(("a", "b"), 1), Set(("a", 0), 1), (("a",), PREFIX)),
        (JOIN_A, JOIN_A, None),
        (JOIN_A, Set(("a",), [1]), (("a",), EXACT)),
        (JOIN_A, Set(("a", "b"), 1), (("a",), PREFIX)),
        (LatticeMerge(("b",), [1]), LatticeMerge(("b",), [1]), (("b",), EXACT)),
    ],
)
def test_5_2_what_conflicts(one: Op, other: Op, found: tuple[Path, ConflictKind] | None) -> None:
    registry = LatticeRegistry()
    registry.register(("a",), GSet[int])
    expected = [] if found is None else [Conflict(0, 1, *found)]
    assert conflicts([patch(one), patch(other)], registry) == expected
    assert conflicts([patch(other), patch(one)], registry) == expected


def test_5_2_both_sides_must_only_join_at_a_registered_path() -> None:
    registry = LatticeRegistry()
    registry.register(("a",), GSet[int])
    mixed = patch(JOIN_A, Set(("a",), []))
    assert conflicts([patch(JOIN_A), mixed], registry) == [Conflict(0, 1, ("a",), EXACT)]


def test_of_two_that_conflict_the_earlier_stays() -> None:
    batch = [patch(Set(("a",), 1)), patch(Set(("a", "x"), 1), Set(("b",), 1)), patch(Set(("b",), 2)), Patch()]
    assert refusals(batch) == (None, Conflict(0, 1, ("a",), PREFIX), None, None)
