"""§5.1: each operation, what it does and what it refuses."""

from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from enum import Enum, IntEnum, StrEnum
from typing import Any

import msgspec
import pytest

from techrevati.agent.state import (
    AnyStateAction,
    Append,
    Decrement,
    Delete,
    Document,
    GSet,
    Increment,
    Insert,
    LatticeMerge,
    LatticeRegistry,
    MergeObject,
    Op,
    Patch,
    Remove,
    Set,
    StateSpec,
    TrackedPatch,
    apply,
    apply_all,
    as_path,
    call_path,
    find,
    show,
)
from techrevati.agent.state.errors import (
    AppendRequiresArray,
    BadAction,
    BadPath,
    BadValue,
    IndexOutOfBounds,
    LatticeUnreadable,
    MergeRequiresObject,
    NumericOperationOnNonNumber,
    PatchRefused,
    PathNotFound,
    TypeMismatch,
)
from techrevati.agent.state.values import same

BIG = 1 << 63

DOES: list[tuple[str, Document, Op, Document]] = [
    ("set makes the objects on the way", {}, Set(("a", "b", "c"), 1), {"a": {"b": {"c": 1}}}),
    ("set replaces what is no object on the way", {"a": 5}, Set(("a", "b"), 1), {"a": {"b": 1}}),
    ("set replaces an array on the way to a key", {"a": [1]}, Set(("a", "b"), 1), {"a": {"b": 1}}),
    ("set replaces null", {"a": None}, Set(("a",), 1), {"a": 1}),
    ("set puts an item of an array", {"a": [1, 2]}, Set(("a", 1), 9), {"a": [1, 9]}),
    ("set goes through an array", {"a": [{"b": 1}]}, Set(("a", 0, "b"), 2), {"a": [{"b": 2}]}),
    ("set makes objects inside an array's item", {"a": [5]}, Set(("a", 0, "b"), 2), {"a": [{"b": 2}]}),
    ("set of the whole document", {"a": 1}, Set((), {"b": 2}), {"b": 2}),
    ("delete takes a key", {"a": 1, "b": 2}, Delete(("a",)), {"b": 2}),
    ("delete of nothing is nothing", {"a": 1}, Delete(("b", "c")), {"a": 1}),
    ("delete below what is no object is nothing", {"a": 1}, Delete(("a", "c")), {"a": 1}),
    ("delete beyond an array is nothing", {"a": [1]}, Delete(("a", 1)), {"a": [1]}),
    ("delete by an index of an object is nothing", {"a": {"0": 1}}, Delete(("a", 0)), {"a": {"0": 1}}),
    ("delete in an array moves the rest up", {"a": [1, 2, 3]}, Delete(("a", 0)), {"a": [2, 3]}),
    ("delete of the whole document leaves an empty one", {"a": 1}, Delete(()), {}),
    ("append adds at the end", {"a": [1]}, Append(("a",), 2), {"a": [1, 2]}),
    ("append makes the array", {}, Append(("a", "b"), 1), {"a": {"b": [1]}}),
    ("append adds an array as one item", {"a": []}, Append(("a",), [1]), {"a": [[1]]}),
    (
        "merge_object sets keys",
        {"a": {"x": 1, "y": 1}},
        MergeObject(("a",), {"x": 2, "z": 3}),
        {"a": {"x": 2, "y": 1, "z": 3}},
    ),
    ("merge_object is shallow", {"a": {"x": {"k": 1}}}, MergeObject(("a",), {"x": {"l": 2}}), {"a": {"x": {"l": 2}}}),
    ("merge_object makes the object", {}, MergeObject(("a",), {"x": 1}), {"a": {"x": 1}}),
    ("merge_object keeps null as a value", {"a": {}}, MergeObject(("a",), {"x": None}), {"a": {"x": None}}),
    ("merge_object into the whole document", {"a": 1}, MergeObject((), {"b": 2}), {"a": 1, "b": 2}),
    ("increment an int", {"n": 1}, Increment(("n",), 2), {"n": 3}),
    ("increment a float", {"n": 1}, Increment(("n",), 0.5), {"n": 1.5}),
    ("increment by one if nothing is said", {"n": [1]}, Increment(("n", 0)), {"n": [2]}),
    ("decrement", {"n": 1}, Decrement(("n",), 3), {"n": -2}),
    ("insert moves the rest down", {"a": [1, 2]}, Insert(("a",), 9, 1), {"a": [1, 9, 2]}),
    ("insert at the end", {"a": [1]}, Insert(("a",), 9, 1), {"a": [1, 9]}),
    ("remove takes the first equal item", {"a": [1, 2, 1]}, Remove(("a",), 1), {"a": [2, 1]}),
    ("remove of what is not there is nothing", {"a": [1]}, Remove(("a",), 3), {"a": [1]}),
    ("remove tells 1 from true and from 1.0", {"a": [True, 1.0, 1]}, Remove(("a",), 1), {"a": [True, 1.0]}),
    (
        "remove compares objects whatever their order",
        {"a": [{"x": 1, "y": 2}]},
        Remove(("a",), {"y": 2, "x": 1}),
        {"a": []},
    ),
    ("lattice_merge without a lattice sets", {"a": [1]}, LatticeMerge(("a",), [2]), {"a": [2]}),
    ("a key with a dot is one key", {}, Set(("a.b", "c"), 1), {"a.b": {"c": 1}}),
    ("a key that looks like an index is a key", {}, Set(("0",), 1), {"0": 1}),
]

REFUSED: list[tuple[str, Document, Op, PatchRefused]] = [
    ("set at the end of an array", {"a": [1]}, Set(("a", 1), 2), IndexOutOfBounds(("a",), 1, 1)),
    ("set through a missing item", {"a": []}, Set(("a", 0, "b"), 2), IndexOutOfBounds(("a",), 0, 0)),
    ("set by an index of an object", {"a": {}}, Set(("a", 0), 2), TypeMismatch(("a",), "an array", "an object")),
    ("set by an index of nothing", {}, Set(("a", 0), 2), TypeMismatch(("a",), "an array", "absent")),
    ("set by an index of the document", {}, Set((0,), 2), TypeMismatch((), "an array", "an object")),
    ("append to an object", {"a": {}}, Append(("a",), 1), AppendRequiresArray(("a",), "an object")),
    ("append to null", {"a": None}, Append(("a",), 1), AppendRequiresArray(("a",), "null")),
    ("append to the document", {}, Append((), 1), AppendRequiresArray((), "an object")),
    ("merge_object into an array", {"a": []}, MergeObject(("a",), {}), MergeRequiresObject(("a",), "an array")),
    ("increment text", {"a": "1"}, Increment(("a",), 1), NumericOperationOnNonNumber(("a",), "a string")),
    ("increment true", {"a": True}, Increment(("a",), 1), NumericOperationOnNonNumber(("a",), "a boolean")),
    ("decrement null", {"a": None}, Decrement(("a",), 1), NumericOperationOnNonNumber(("a",), "null")),
    ("increment nothing", {}, Increment(("a",), 1), PathNotFound(("a",))),
    ("decrement nothing", {"a": {}}, Decrement(("a", "b"), 1), PathNotFound(("a", "b"))),
    ("insert beyond the end", {"a": [1]}, Insert(("a",), 9, 2), IndexOutOfBounds(("a",), 2, 1)),
    ("insert into nothing", {}, Insert(("a",), 9, 0), PathNotFound(("a",))),
    ("insert into an object", {"a": {}}, Insert(("a",), 9, 0), TypeMismatch(("a",), "an array", "an object")),
    ("remove from an object", {"a": {}}, Remove(("a",), 1), TypeMismatch(("a",), "an array", "an object")),
    ("remove from nothing", {}, Remove(("a",), 1), PathNotFound(("a",))),
]


@pytest.mark.parametrize(("document", "op", "after"), [row[1:] for row in DOES], ids=[row[0] for row in DOES])
def test_5_1_what_an_operation_does(document: Document, op: Op, after: Document) -> None:
    assert same(apply(document, Patch((op,))), after), "and of the same types: 1 is not true"


@pytest.mark.parametrize(("document", "op", "error"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_5_1_what_an_operation_refuses(document: Document, op: Op, error: PatchRefused) -> None:
    with pytest.raises(PatchRefused) as caught:
        apply(document, Patch((Set(("before",), 1), op)))
    assert type(caught.value) is type(error) and str(caught.value) == str(error)
    assert "before" not in document


def test_5_1_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(BadValue, match=r"\$\.n is not JSON"):
        apply({"n": 2 * BIG - 1}, Patch((Increment(("n",), 1),)))
    with pytest.raises(BadValue):
        apply({"n": 1e308}, Patch((Increment(("n",), 1e308),)))


def test_5_1_a_lattice_merge_joins_by_the_registered_lattice() -> None:
    registry = LatticeRegistry()
    registry.register(("seen",), GSet[int])
    op = LatticeMerge(("seen",), [3, 1])
    assert apply({"seen": [2]}, Patch((op,)), registry) == {"seen": [1, 2, 3]}
    assert apply({}, Patch((op,)), registry) == {"seen": [1, 3]}, "nothing there: the value itself"


@pytest.mark.parametrize(("document", "value"), [({"seen": [1]}, ["x"]), ({"seen": {"k": 1}}, [1]), ({}, 5)])
def test_5_1_a_lattice_merge_of_what_is_no_lattice_value_is_refused(document: Document, value: Any) -> None:
    registry = LatticeRegistry()
    registry.register(("seen",), GSet[int])
    with pytest.raises(LatticeUnreadable, match=r"\$\.seen cannot be read as GSet\[int\]"):
        apply(document, Patch((LatticeMerge(("seen",), value),)), registry)


def test_5_1_the_wire_form_of_operations() -> None:
    ops = (
        Set(("user", "name"), "Alice"),
        Delete(("a", 0)),
        Append(("l",), 1),
        MergeObject(("o",), {"k": 1}),
        Increment(("n",), 2),
        Decrement(("n",), 0.5),
        Insert(("l",), "x", 0),
        Remove(("l",), "x"),
        LatticeMerge(("s",), [1]),
    )
    wire = [
        {"op": "set", "path": ["user", "name"], "value": "Alice"},
        {"op": "delete", "path": ["a", 0]},
        {"op": "append", "path": ["l"], "value": 1},
        {"op": "merge_object", "path": ["o"], "value": {"k": 1}},
        {"op": "increment", "path": ["n"], "amount": 2},
        {"op": "decrement", "path": ["n"], "amount": 0.5},
        {"op": "insert", "path": ["l"], "value": "x", "index": 0},
        {"op": "remove", "path": ["l"], "value": "x"},
        {"op": "lattice_merge", "path": ["s"], "value": [1]},
    ]
    assert msgspec.json.decode(msgspec.json.encode(Patch(ops))) == {"ops": wire}
    assert msgspec.json.decode(msgspec.json.encode({"ops": wire}), type=Patch) == Patch(ops)


def test_5_1_a_tracked_patch_says_where_it_came_from() -> None:
    tracked = TrackedPatch(Patch((Set(("a",), 1),)), id="p1", source="tool:search", timestamp=5)
    wire = {
        "patch": {"ops": [{"op": "set", "path": ["a"], "value": 1}]},
        "id": "p1",
        "source": "tool:search",
        "timestamp": 5,
    }
    assert msgspec.json.decode(msgspec.json.encode(tracked)) == wire and msgspec.convert(wire, TrackedPatch) == tracked
    assert apply({}, tracked) == {"a": 1}


@pytest.mark.parametrize(
    "wire",
    [
        b'{"op":"set","path":["a",-1],"value":1}',
        b'{"op":"set","path":["a",1.5],"value":1}',
        b'{"op":"set","path":"a.b","value":1}',
        b'{"op":"set","path":["a"]}',
        b'{"op":"move","path":["a"],"value":1}',
        b'{"op":"merge_object","path":["a"],"value":[1]}',
        b'{"op":"set","path":[],"value":[1]}',
        b'{"op":"insert","path":["a"],"value":1,"index":-1}',
        b'{"op":"increment","path":["a"],"amount":"1"}',
        b'{"op":"delete","path":["a"],"extra":1}',
    ],
)
def test_5_1_what_is_no_operation_is_not_read(wire: bytes) -> None:
    with pytest.raises((msgspec.ValidationError, BadPath, BadValue)):
        msgspec.json.decode(wire, type=Op)


def test_5_1_a_path_prints_as_text() -> None:
    assert show(("user", "items", 0)) == "$.user.items[0]"
    assert show(()) == "$"
    assert show(("a.b", 'say "x"', "")) == '$["a.b"]["say \\"x\\""][""]'


@pytest.mark.parametrize("path", ["user.name", ("a", -1), ("a", True), ("a", 1.5), ("a", None)])
def test_5_1_paths_are_tuples_of_keys_and_indexes(path: Any) -> None:
    with pytest.raises(BadPath):
        as_path(path)
    with pytest.raises(BadPath):
        Set(path, 1)


def test_5_1_text_given_as_a_path_is_answered_with_the_tuple() -> None:
    with pytest.raises(BadPath, match=r"use a tuple of keys, e.g. \('user', 'name'\)"):
        Delete("user.name")  # type: ignore[arg-type]


@pytest.mark.parametrize("call_id", ["call.1", "a.b.c", "$[0]", "x/y", "__run"])
def test_5_1_call_ids_with_dots_address_one_call(call_id: str) -> None:
    document = apply({}, Patch((Set(call_path(call_id, ("tool_call_state",)), {"status": "running"}),)))
    assert document == {"__tool_call_scope": {call_id: {"tool_call_state": {"status": "running"}}}}
    with pytest.raises(BadPath):
        call_path("")


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"k": {1: 2}}, r"\$\.a\.k"),
        ([1, {"x": {1, 2}}], r"\$\.a\[1\]\.x"),
        (float("nan"), r"\$\.a"),
        ([float("inf")], r"\$\.a\[0\]"),
        (2 * BIG, r"\$\.a"),
        (b"bytes", r"\$\.a"),
        (object(), r"\$\.a"),
    ],
)
def test_5_1_a_value_that_is_not_json_is_refused_where_it_is(value: Any, where: str) -> None:
    with pytest.raises(BadValue, match=f"value at {where} is not JSON"):
        Set(("a",), value)


def test_5_1_what_is_too_deep_or_contains_itself_is_refused() -> None:
    nested: Any = []
    for _ in range(5000):
        nested = [nested]
    around: dict[str, Any] = {}
    around["self"] = around
    for value in (nested, around):
        with pytest.raises(BadValue, match="deeper than 128, or contains itself"):
            Set(("a",), value)
        with pytest.raises(BadAction):
            AnyStateAction.new(Anything, value)
    with pytest.raises(BadPath, match="at most 128 keys, not 200"):
        Set(("a",) * 200, 1)


class Anything(StateSpec):
    PATH = ("anything",)

    def reduce(self, action: Any) -> None: ...


def test_5_1_find_tells_null_from_nothing() -> None:
    document = {"a": None, "l": [1]}
    assert find(document, ("a",), "none") is None
    assert find(document, ("b",), "none") == "none"
    assert find(document, ("l", 1), "none") == find(document, ("l", "0"), "none") == find(document, ("a", "b"), "none")


def test_5_1_canonicalize_drops_what_is_undone_and_keeps_the_order() -> None:
    patch = Patch(
        (Set(("a",), 1), Set(("b",), 1), Set(("a",), 2), Delete(("c",)), Increment(("b",), 1), Set(("c", "d"), 1))
    )
    short = Patch((Set(("b",), 1), Set(("a",), 2), Delete(("c",)), Increment(("b",), 1), Set(("c", "d"), 1)))
    assert patch.canonicalize() == short
    for through_an_array in (Set(("a", 0), 1), Delete(("a", 0))):  # it may be refused, or move the rest
        twice = Patch((through_an_array, through_an_array))
        assert twice.canonicalize() == twice
    assert Patch((Set(("a",), 1), Increment(("a",), 1), Set(("a",), 5))).canonicalize().ops[0] == Set(("a",), 1)


def test_unchanged_parts_are_shared_and_touched_containers_copied_once() -> None:
    document: Document = {"big": {"kept": [1]}, "small": {"n": 1}}
    after = apply_all(document, [Patch((Increment(("small", "n"), 1),)), Patch((Increment(("small", "n"), 1),))])
    assert after["big"] is document["big"] and after["small"] == {"n": 3} and document["small"] == {"n": 1}


def test_a_value_of_a_patch_is_not_changed_by_the_next_operation() -> None:
    op = Set(("a",), [1])
    first = apply({}, Patch((op, Append(("a",), 2))))
    assert first == {"a": [1, 2]} and op.value == [1] and apply({}, Patch((op,))) == {"a": [1]}


def test_values_of_kindred_types_are_stored_as_plain_json() -> None:
    class Colour(StrEnum):
        RED = "red"

    class Older(str, Enum):  # noqa: UP042
        BLUE = "blue"

    class Level(IntEnum):
        HIGH = 3

    Point = namedtuple("Point", "x y")
    stored = Set(("a",), [Colour.RED, Older.BLUE, Level.HIGH, OrderedDict(k=1), Point(1, 2)]).value
    assert stored == ["red", "blue", 3, {"k": 1}, [1, 2]]
    assert [type(item) for item in stored] == [str, str, int, dict, list]


def test_a_patch_of_many_operations_copies_a_container_once() -> None:
    class Counted(list[Any]):
        copies = 0

        def copy(self) -> "Counted":
            Counted.copies += 1
            return Counted(self)

    after = apply({"log": Counted()}, Patch(tuple(Append(("log",), n) for n in range(100))))
    assert after["log"] == list(range(100)) and Counted.copies == 1


def test_a_patch_copies_only_the_containers_on_its_way() -> None:
    """Cost follows what is touched: of 3,003 containers, a patch of two operations below one object copies three."""
    document: Document = {"notes": {str(n): {"tags": ["a"], "at": {"n": n}} for n in range(1000)}, "other": {}}
    after = apply(document, Patch((Set(("notes", "7", "at", "n"), 1), Set(("notes", "7", "at", "m"), 2))))
    before = {id(container) for container in containers(document)}
    assert len(before) == 3003
    assert sum(id(container) not in before for container in containers(after)) == 4  # and the document itself


def containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)
