"""§6: each lattice's merge, its JSON, and what changes it.  Their laws: tests/property/agent."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from techrevati.agent.state import (
    NO_LATTICES,
    Flag,
    GCounter,
    GSet,
    LatticeRegistry,
    MaxReg,
    MinReg,
    ORMap,
    ORSet,
    lattice_of,
)
from techrevati.agent.state.errors import ActorNeeded
from techrevati.agent.state.lattice import join, write
from techrevati.agent.state.registers import COUNT_LIMIT
from techrevati.agent.state.registry import ANY_KEY


@dataclass
class Pair:
    most: MaxReg[int] = field(default_factory=MaxReg)
    seen: GSet[str] = field(default_factory=GSet)


def read(annotation: Any, stored: Any) -> Any:
    found = lattice_of(annotation)
    assert found is not None
    return found.read(stored)


def test_6_flag_is_off_until_enabled_and_merges_by_or() -> None:
    flag = Flag()
    assert not flag and flag.write() is False
    flag.enable()
    assert flag and flag.merge(Flag()) and Flag().merge(flag) and not Flag().merge(Flag())
    assert flag.write() is True and read(Flag, True) and not read(Flag, None)


def test_6_max_register_takes_the_greatest() -> None:
    one, other = MaxReg(3), MaxReg(5)
    assert one.merge(other).value == 5 and one.write() == 3
    other.set(1)
    assert other.value == 1, "set replaces here"
    assert one.merge(other).value == 3, "a merge still takes the greatest"
    assert MaxReg[int]().merge(one).value == 3 and MaxReg[int]().write() is None


def test_6_min_register_takes_the_least() -> None:
    assert MinReg(3).merge(MinReg(5)).value == 3 == MinReg(3).merge(MinReg()).value
    assert MinReg("b").merge(MinReg("a")).write() == "a"


def test_6_registers_of_equal_values_agree_on_one_form() -> None:
    texts = {msgspec.json.encode(one.merge(other).write()) for one, other in _orders(MaxReg(1), MaxReg[Any](1.0))}
    assert len(texts) == 1


def _orders(one: Any, other: Any) -> list[tuple[Any, Any]]:
    return [(one, other), (other, one)]


def test_6_counter_is_the_sum_of_what_each_actor_counted() -> None:
    one, other = GCounter({"a": 2}), GCounter({"a": 1, "b": 3})
    assert one.merge(other).write() == {"a": 2, "b": 3} and one.merge(other).value == 5
    one.increment(4, actor="c")
    assert one.write() == {"a": 2, "c": 4}


def test_6_counter_saturates() -> None:
    counter = GCounter()
    counter.increment(COUNT_LIMIT, actor="a")
    counter.increment(COUNT_LIMIT, actor="a")
    assert counter.value == COUNT_LIMIT


def test_6_counter_only_grows_and_names_who_counts() -> None:
    with pytest.raises(ValueError, match="delta -1 is refused"):
        GCounter().increment(-1, actor="a")
    with pytest.raises(ActorNeeded):
        GCounter().increment()
    counter = GCounter()
    counter.bind("a")
    counter.increment()
    counter.increment(0, actor="b")
    assert counter.write() == {"a": 1}


def test_6_grow_only_set_is_a_union_in_a_sorted_array() -> None:
    one, other = GSet(["b", "a"]), GSet(["c", "a"])
    assert one.merge(other).write() == ["a", "b", "c"]
    assert other.insert("d") is True and other.insert("d") is False
    assert "d" in other and len(other) == 3 and list(other) == ["a", "c", "d"]


def test_6_a_set_tells_one_from_true_and_sorts_numbers_by_size() -> None:
    assert GSet[Any]([10, 9, True, "x", 1.5]).write() == [1.5, 9, 10, "x", True]


def test_6_observed_set_adds_and_removes() -> None:
    items = ORSet[str](actor="r1")
    assert items.insert("x") is True and items.insert("x") is False
    assert items.remove("y") is False, "removing an unknown element does nothing"
    assert items.write() == {"entries": {"x": {"r1": 2}}, "tombstones": {}}
    assert items.remove("x") is True and "x" not in items and list(items) == []
    items.insert("x")
    assert items.write() == {"entries": {"x": {"r1": 3}}, "tombstones": {"x": {"r1": 2}}}
    assert list(items) == ["x"] and len(items) == 1


def test_6_observed_set_an_add_wins_over_a_removal_at_the_same_time() -> None:
    start = ORSet(["x"], actor="r0")
    removed, added = (read(ORSet[str], start.write()) for _ in range(2))
    removed.remove("x")
    added.insert("x", actor="r2")
    assert "x" in removed.merge(added) and "x" in added.merge(removed)


def test_6_observed_set_a_removal_takes_every_add_it_saw() -> None:
    one, other = ORSet(["x"], actor="r1"), ORSet(["x"], actor="r2")
    both = one.merge(other)
    both.remove("x")
    assert "x" not in both.merge(one).merge(other)


def test_6_observed_set_clocks_need_not_agree() -> None:
    """One replica has counted far ahead of the other: with one clock for all, its removal would win."""
    ahead = ORSet[str](actor="fast")
    for _ in range(100):
        ahead.insert("x")
    ahead.remove("x")
    late = ORSet[str](actor="slow")
    late.insert("x")
    assert "x" in ahead.merge(late) and "x" in late.merge(ahead)


def test_6_observed_set_of_other_elements_keeps_their_type() -> None:
    items = ORSet[int]([10, 9], actor="r")
    assert items.write()["entries"] == {"10": {"r": 1}, "9": {"r": 1}}
    assert set(read(ORSet[int], items.write())) == {9, 10}
    assert set(read(ORSet[tuple[int, str]], ORSet([(1, "a")], actor="r").write())) == {(1, "a")}


def test_6_observed_map_puts_gets_removes() -> None:
    stock = ORMap[str, GCounter](actor="r1")
    stock.put("pears", GCounter({"r0": 2}))
    pears = stock.get("pears")
    assert pears is not None and pears.value == 2 and stock.get("plums") is None
    pears.increment()
    assert stock.write() == {
        "entries": {"pears": {"value": {"r0": 2, "r1": 1}, "tags": {"r1": 1}}},
        "tombstones": {},
    }
    assert stock.keys() == ["pears"] and "pears" in stock and len(stock) == 1
    assert stock.remove("pears") is True and stock.remove("plums") is False
    assert stock.keys() == [] and stock.get("pears") is None


def test_6_observed_map_merges_values_and_a_put_wins_over_a_removal_at_the_same_time() -> None:
    start = ORMap[str, GCounter](actor="r0")
    start.put("pears", GCounter({"r0": 2}))
    removed, put = (read(ORMap[str, GCounter], start.write()) for _ in range(2))
    removed.remove("pears")
    put.put("pears", GCounter({"r1": 5}), actor="r1")
    for one, other in _orders(removed, put):
        merged = one.merge(other).get("pears")
        assert merged is not None and merged.write() == {"r0": 2, "r1": 5}


def test_6_observed_map_a_removed_entry_keeps_its_value_for_later_merges() -> None:
    stock = ORMap[str, GCounter](actor="r0")
    stock.put("pears", GCounter({"r0": 2}))
    stock.remove("pears")
    stock.put("pears", GCounter({"r1": 1}))
    pears = stock.get("pears")
    assert pears is not None and pears.value == 3


def test_6_observed_map_values_must_be_lattices() -> None:
    with pytest.raises(TypeError, match="int is no lattice"):
        ORMap[str, Any](actor="r").put("x", 5)
    with pytest.raises(TypeError, match="annotated with its key and its lattice"):
        read(ORMap, {"entries": {}})
    with pytest.raises(ActorNeeded):
        ORMap[str, GCounter]().put("x", GCounter())


def test_6_a_class_of_lattices_merges_field_by_field() -> None:
    one, other = Pair(MaxReg(3), GSet(["a"])), Pair(MaxReg(2), GSet(["b"]))
    assert write(join(one, other)) == {"most": 3, "seen": ["a", "b"]}
    assert read(Pair, {"most": 3}) == Pair(MaxReg(3), GSet())


def test_6_a_class_with_a_plain_field_is_no_lattice() -> None:
    @dataclass
    class Mixed:
        seen: GSet[str]
        name: str

    assert lattice_of(Mixed) is None and lattice_of(dict[str, int]) is None and lattice_of(int | None) is None
    with pytest.raises(TypeError, match="is no lattice"):
        LatticeRegistry().register(("x",), Mixed)


@pytest.mark.parametrize(
    ("annotation", "stored"),
    [
        (Flag, "yes"),
        (MaxReg[int], "3"),
        (GCounter, {"a": -1}),
        (GCounter, {"a": 1.5}),
        (GSet[int], {"a": 1}),
        (GSet[int], ["a"]),
        (ORSet[str], ["a"]),
        (ORSet[str], {"entries": {"x": 3}}),
        (ORSet[str], {"entries": {"x": {"r": 0}}}),
        (ORSet[int], {"entries": {"x": {"r": 1}}}),
        (ORSet[str], {"items": {}}),
        (ORMap[str, GCounter], {"entries": {"x": {"value": {}}}}),
        (ORMap[str, GCounter], {"entries": {"x": 5}}),
        (ORMap[str, GCounter], {"entries": {"x": {"value": [], "tags": {}}}}),
        (Pair, [1]),
        (Pair, {"most": "x"}),
    ],
)
def test_6_what_a_lattice_did_not_write_is_not_read(annotation: Any, stored: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        read(annotation, stored)


def test_nobody_adds_to_the_registry_that_everybody_shares() -> None:
    with pytest.raises(TypeError, match="a LatticeRegistry of your own"):
        NO_LATTICES.register(("x",), GSet[int])


def test_6_values_print_as_what_they_store() -> None:
    assert repr(GCounter({"a": 1})) == "GCounter({'a': 1})" and repr(Flag(True)) == "Flag(True)"
    assert GSet([1]) != GSet([2]) and GSet([1]) == GSet([1]) and GSet([1]) != [1]


def test_a_registry_takes_over_another() -> None:
    mine, other = LatticeRegistry(), LatticeRegistry()
    other.register(("a",), GSet[int])
    other.register(("calls", ANY_KEY, "n"), GCounter)
    mine.include(other)
    assert repr(mine.at(("a",))) == "Lattice(GSet[int])" and mine.at(("calls", "c.1", "n")) is not None
    assert mine.at(("calls", "n")) is None and mine.at(("calls", "c", "m")) is None


def test_values_of_two_kinds_do_not_join() -> None:
    with pytest.raises(TypeError, match="Flag does not join with GCounter"):
        join(Flag(), GCounter())
