"""A thread's state: only what was touched is decoded, only what changed is written."""

import pytest

from techrevati.fleet.state import State, apply_delta, parse_full, write_delta, write_full
from techrevati.store.errors import NotJson, PayloadTooLarge

LIMIT = 1 << 20


def test_untouched_keys_are_neither_decoded_nor_written() -> None:
    state = State({"a": "1", "b": "not even JSON"}, LIMIT)
    assert state["a"] == 1
    assert state.changes() == ({}, [])


def test_changes_in_place_are_seen() -> None:
    state = State({"notes": '["one"]'}, LIMIT)
    state["notes"].append("two")
    assert state.changes() == ({"notes": '["one","two"]'}, [])


def test_a_value_set_to_what_it_was_is_no_change() -> None:
    state = State({"n": "1"}, LIMIT)
    state["n"] = 1
    assert state.changes() == ({}, [])


def test_deleted_and_set_again() -> None:
    state = State({"a": "1", "b": "2"}, LIMIT)
    del state["a"]
    assert "a" not in state and list(state) == ["b"] and len(state) == 1
    with pytest.raises(KeyError):
        state["a"]
    with pytest.raises(KeyError):
        del state["a"]
    assert state.changes() == ({}, ["a"])
    state["a"] = 3
    assert state.changes() == ({"a": "3"}, [])


def test_a_new_key_that_is_deleted_leaves_nothing() -> None:
    state = State({}, LIMIT)
    state["x"] = 1
    del state["x"]
    assert state.changes() == ({}, []) and dict(state) == {}


def test_what_cannot_be_kept_names_its_key() -> None:
    state = State({}, 100)
    with pytest.raises(TypeError, match="state key 1 is refused"):
        state[1] = 2  # type: ignore[index]
    state["bad"] = {1}
    with pytest.raises(NotJson, match=r"state\['bad'\]"):
        state.changes()
    state["bad"] = "x" * 200
    with pytest.raises(PayloadTooLarge, match=r"state\['bad'\] is 202 bytes"):
        state.changes()


@pytest.mark.parametrize(
    ("changed", "gone"), [({"a": "2", "ü": '"é"'}, []), ({}, ["a"]), ({"c": "[]"}, ["b"]), ({}, [])]
)
def test_a_delta_read_onto_the_state_before_gives_the_state_after(changed: dict[str, str], gone: list[str]) -> None:
    before = {"a": "1", "b": '{"deep":[1,2]}'}
    after = {key: text for key, text in {**before, **changed}.items() if key not in gone}
    assert apply_delta(before, write_delta(changed, gone)) == after
    assert parse_full(write_full(after)) == after
