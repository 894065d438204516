"""Whatever the document and the patch: all of it or nothing, and the same again."""

import json
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from techrevati.agent.state import (
    Append,
    Delete,
    Document,
    Op,
    Patch,
    Set,
    StateError,
    StateManager,
    apply,
    apply_all,
)
from techrevati.agent.state.values import same
from tests.property.agent.documents import EASY_OPS, OBJECTS, OPS, PATCHES


def outcome(document: Document, patch: Patch) -> Any:
    """Give the new document, or that the patch was refused."""
    try:
        return apply(document, patch)
    except StateError:
        return "refused"


@given(OBJECTS, PATCHES)
def test_the_document_given_never_changes(document: Document, patch: Patch) -> None:
    before = json.dumps(document)
    outcome(document, patch)
    assert json.dumps(document) == before


@given(OBJECTS, PATCHES)
def test_a_patch_does_what_its_operations_do_one_by_one(document: Document, patch: Patch) -> None:
    alone: Any = document
    for op in patch.ops:
        alone = outcome(alone, Patch((op,)))
        if alone == "refused":
            break
    assert same(outcome(document, patch), alone)


@given(OBJECTS, st.lists(PATCHES, max_size=4))
def test_a_batch_is_applied_whole_or_not_at_all(document: Document, patches: list[Patch]) -> None:
    manager = StateManager(document)
    before = manager.document
    try:
        manager.commit_batch(patches)
    except StateError:
        assert manager.document is before and manager.history == ()
    else:
        assert same(manager.document, apply_all(document, patches)) and len(manager.history) == len(patches)


@given(OBJECTS, st.lists(PATCHES, max_size=6), st.integers(0, 6))
def test_replay_equals_rebuild(document: Document, patches: list[Patch], keep: int) -> None:
    manager = StateManager(document)
    states = []
    for patch in patches:
        try:
            states.append(manager.commit(patch))
        except StateError:
            continue
    for index, state in enumerate(states):
        assert same(manager.replay_to(index), state)
    folded = manager.prune_history(keep)
    assert folded == max(0, len(states) - keep)
    for index, state in enumerate(states[folded:]):
        assert same(manager.replay_to(index), state)


@given(OBJECTS, st.lists(st.one_of(EASY_OPS, EASY_OPS, OPS), max_size=8).map(lambda ops: Patch(tuple(ops))))
@example({}, Patch((Delete(("a",)), Delete(("a", "a")), Set(("a",), None))))
@example({"a": 5}, Patch((Set(("a", "b"), 1), Append(("a", "b"), 2))))
@example({}, Patch((Set(("a", "b"), 1), Delete(("a", "b")))))
@example({"a": [1]}, Patch((Set(("a", "b"), 1), Set(("a", 0), 2), Set(("a", "b"), 3))))
@settings(max_examples=400)
def test_canonicalize_keeps_the_meaning(document: Document, patch: Patch) -> None:
    short = patch.canonicalize()
    assert same(outcome(document, short), outcome(document, patch))
    rest = iter(patch.ops)
    assert all(any(op is kept for op in rest) for kept in short.ops), "nothing is reordered"
    assert short.canonicalize() == short


@given(PATCHES)
def test_patches_survive_the_wire(patch: Patch) -> None:
    encoded = msgspec.json.encode(patch)
    assert msgspec.json.decode(encoded, type=Patch) == patch
    assert all("op" in op and isinstance(op["path"], list) for op in json.loads(encoded)["ops"])


@given(OPS)
def test_what_made_an_operation_may_change_afterwards(op: Op) -> None:
    value = {"inner": [1]}
    made = Set(("a",), value)
    value["inner"].append(2)
    assert made.value == {"inner": [1]}
    assert outcome({}, Patch((op,))) == outcome({}, Patch((op,)))
