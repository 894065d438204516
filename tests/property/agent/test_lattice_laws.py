"""The laws of every lattice: commutative, associative, idempotent, and nothing is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.agent.state import (
    Flag,
    GCounter,
    GSet,
    Lattice,
    LatticeMerge,
    LatticeRegistry,
    MaxReg,
    MinReg,
    ORMap,
    ORSet,
    Patch,
    apply,
    apply_all,
    conflicts,
    lattice_of,
)
from techrevati.agent.state.lattice import bind, join, write
from techrevati.agent.state.values import canonical


@dataclasses.dataclass
class Tally:
    """A composite, as a dataclass."""

    seen: GSet[str] = dataclasses.field(default_factory=GSet)
    count: GCounter = dataclasses.field(default_factory=GCounter)


class Deep(msgspec.Struct):
    """A composite of composites, as a Struct."""

    tally: Tally = msgspec.field(default_factory=Tally)
    done: Flag = msgspec.field(default_factory=Flag)
    tags: ORMap[str, ORSet[int]] = msgspec.field(default_factory=ORMap)


NUMBERS = st.one_of(st.integers(-9, 9), st.sampled_from([-0.0, 0.0, 1.0, 2.5]))
ACTORS = st.sampled_from(["r1", "r2", "r3"])
Change = Callable[[Any, Any], None]


def change_counter(value: GCounter, drawn: Any) -> None:
    value.increment(abs(int(drawn)))


def change_set(value: ORSet[int], drawn: Any) -> None:
    if drawn < 0:
        value.remove(-drawn % 3)
    else:
        value.insert(drawn % 3)


def change_map_of(inner: Callable[[], Any], change: Change) -> Change:
    def changed(value: ORMap[str, Any], drawn: Any) -> None:
        key = "xyz"[abs(drawn) % 3]
        if drawn < -6:
            value.remove(key)
            return
        known = value.get(key)
        if known is None:
            value.put(key, inner())
            known = value.get(key)
        change(known, drawn)

    return changed


def change_tally(value: Tally, drawn: Any) -> None:
    value.seen.insert(str(drawn))
    value.count.increment(abs(int(drawn)))


change_tags = change_map_of(ORSet, change_set)


def change_deep(value: Deep, drawn: Any) -> None:
    change_tally(value.tally, drawn)
    change_tags(value.tags, drawn)
    if drawn == 7:
        value.done.enable()


WHOLE = st.integers(-9, 9)
KINDS: dict[str, tuple[Any, Change, st.SearchStrategy[Any]]] = {
    "Flag": (Flag, lambda value, drawn: value.enable() if drawn else None, st.booleans()),
    "MaxReg": (MaxReg, lambda value, drawn: value.set(drawn), NUMBERS),
    "MaxReg[str]": (MaxReg[str], lambda value, drawn: value.set(str(drawn)), WHOLE),
    "MinReg": (MinReg, lambda value, drawn: value.set(drawn), NUMBERS),
    "GCounter": (GCounter, change_counter, WHOLE),
    "GSet": (GSet, lambda value, drawn: value.insert(drawn), st.one_of(NUMBERS, st.booleans(), st.text(max_size=2))),
    "GSet[int]": (GSet[int], lambda value, drawn: value.insert(drawn), WHOLE),
    "ORSet[int]": (ORSet[int], change_set, WHOLE),
    "ORMap of counters": (ORMap[str, GCounter], change_map_of(GCounter, change_counter), WHOLE),
    "ORMap of ORMap": (
        ORMap[str, ORMap[str, GCounter]],
        change_map_of(ORMap, change_map_of(GCounter, change_counter)),
        WHOLE,
    ),
    "ORMap of composites": (ORMap[str, Tally], change_map_of(Tally, change_tally), WHOLE),
    "a dataclass": (Tally, change_tally, WHOLE),
    "a Struct of composites": (Deep, change_deep, WHOLE),
}
each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def lattice(kind: str) -> Lattice:
    found = lattice_of(KINDS[kind][0])
    assert found is not None
    return found


def histories(kind: str) -> st.SearchStrategy[list[Any]]:
    """Draw three replicas that changed and heard of each other in any order.

    A step is (replica, change), or (replica, other) for hearing of it.
    """
    steps = st.lists(st.tuples(st.integers(0, 2), st.one_of(KINDS[kind][2], st.builds(Heard, st.integers(0, 2)))))
    return steps.map(lambda drawn: replicas(kind, drawn))


@dataclasses.dataclass
class Heard:
    other: int


def replicas(kind: str, steps: list[tuple[int, Any]]) -> list[Any]:
    found = lattice(kind)
    values = [found.empty() for _ in range(3)]
    for index, value in enumerate(values):
        bind(value, f"r{index}")
    for index, step in steps:
        if isinstance(step, Heard):
            values[index] = join(values[index], values[step.other])
            bind(values[index], f"r{index}")
        else:
            KINDS[kind][1](values[index], step)
    return values


def text(value: Any) -> bytes:
    return canonical(write(value))


@each_kind
@given(data=st.data())
@settings(max_examples=40)
def test_join_is_commutative(kind: str, data: st.DataObject) -> None:
    one, other, _ = data.draw(histories(kind))
    assert text(join(one, other)) == text(join(other, one))


@each_kind
@given(data=st.data())
@settings(max_examples=40)
def test_join_is_associative(kind: str, data: st.DataObject) -> None:
    one, two, three = data.draw(histories(kind))
    assert text(join(join(one, two), three)) == text(join(one, join(two, three)))


@each_kind
@given(data=st.data())
@settings(max_examples=40)
def test_join_is_idempotent_and_changes_neither_side(kind: str, data: st.DataObject) -> None:
    one, other, _ = data.draw(histories(kind))
    before = text(one), text(other)
    joined = join(one, other)
    assert text(join(one, one)) == before[0]
    assert text(join(joined, one)) == text(joined) == text(join(other, joined))
    bind(joined, "r9")
    KINDS[kind][1](joined, data.draw(KINDS[kind][2]))
    assert (text(one), text(other)) == before, "what was joined shares nothing with its sources"


@each_kind
@given(data=st.data())
@settings(max_examples=40)
def test_what_is_stored_reads_back_the_same(kind: str, data: st.DataObject) -> None:
    for value in data.draw(histories(kind)):
        stored = write(value)
        again = lattice(kind).read(msgspec.json.decode(msgspec.json.encode(stored)))
        assert text(again) == text(value)


@each_kind
@given(data=st.data())
@settings(max_examples=40)
def test_nothing_is_lost_on_a_document(kind: str, data: st.DataObject) -> None:
    """Three tool calls of one round start from one snapshot: the round's state is their join, in any order."""
    found = lattice(kind)
    start = join(*data.draw(histories(kind))[:2])
    registry = LatticeRegistry()
    registry.register(("at", "here"), found)
    document = apply({}, Patch((LatticeMerge(("at", "here"), write(start)),)), registry)
    calls, expected = [], start
    for index in range(3):
        value = found.read(document["at"]["here"])
        bind(value, f"call-{index}")
        for drawn in data.draw(st.lists(KINDS[kind][2], max_size=3)):
            KINDS[kind][1](value, drawn)
        calls.append(Patch((LatticeMerge(("at", "here"), write(value)),)))
        expected = join(expected, value)
    assert conflicts(calls, registry) == []
    order = data.draw(st.permutations(calls))
    after = apply_all(document, order, registry)
    assert canonical(after["at"]["here"]) == text(expected)
    assert apply_all(after, order, registry) == after, "applied again, nothing changes"


@given(st.lists(st.tuples(ACTORS, st.integers(0, 5))))
def test_a_counter_counts_everything_when_actors_differ(counts: list[tuple[str, int]]) -> None:
    merged = GCounter()
    for index, (actor, count) in enumerate(counts):
        one = GCounter()
        one.increment(count, actor=f"{actor}-{index}")
        merged = merged.merge(one)
    assert merged.value == sum(count for _, count in counts)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(["add", "remove", "hear"])), max_size=14)
)
@settings(max_examples=300)
def test_an_add_survives_every_removal_that_did_not_see_it(steps: list[tuple[int, int, str]]) -> None:
    """Beside the sets runs a model that keeps every add apart: present is what some add put there, of which
    nobody who knew that add has removed it."""
    sets = [ORSet[int](actor=f"r{index}") for index in range(3)]
    adds: list[set[tuple[int, int]]] = [set(), set(), set()]  # (element, number of the add)
    gone: list[set[tuple[int, int]]] = [set(), set(), set()]
    for number, (replica, item, step) in enumerate(steps):
        if step == "add":
            sets[replica].insert(item)
            adds[replica].add((item, number))
        elif step == "remove":
            sets[replica].remove(item)
            gone[replica] |= {add for add in adds[replica] if add[0] == item}
        else:
            sets[replica] = sets[replica].merge(sets[item])
            sets[replica].bind(f"r{replica}")
            adds[replica] |= adds[item]
            gone[replica] |= gone[item]
        for index in range(3):
            assert set(sets[index]) == {item for item, _ in adds[index] - gone[index]}
