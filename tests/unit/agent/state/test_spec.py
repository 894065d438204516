"""§5.3: typed states, their actions, and how actions become patches."""

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import msgspec
import pytest
from msgspec import field

from techrevati.agent.state import (
    AnyStateAction,
    Delete,
    GCounter,
    GSet,
    LatticeMerge,
    ORMap,
    Patch,
    Set,
    StateRegistry,
    StateScope,
    StateSpec,
    apply,
    apply_all,
    conflicts,
    reduce_actions,
    state_at,
)
from techrevati.agent.state.errors import (
    ActorNeeded,
    BadAction,
    BadSpec,
    BadValue,
    NameTaken,
    ReduceFailed,
    StateUnreadable,
    UnknownState,
    WrongScope,
)


class Add(msgspec.Struct, tag="add"):
    item: str


class Empty(msgspec.Struct, tag="empty"):
    pass


class Cart(StateSpec):
    PATH = ("shop", "cart")
    ACTION = Add | Empty
    items: list[str] = field(default_factory=list)
    changes: int = 0
    note: str | None = None

    def reduce(self, action: Add | Empty) -> None:
        if isinstance(action, Empty):
            self.items, self.note = [], None
        elif action.item == "bad":
            raise RuntimeError("no such item")
        else:
            self.items.append(action.item)
            self.changes += 1
            self.note = action.item


class Seen(StateSpec):
    PATH = ("seen",)
    ACTION = str
    plain: int = 3
    words: GSet[str] = field(default_factory=GSet)
    times: GCounter = field(default_factory=GCounter)

    def reduce(self, action: str) -> None:
        if action.startswith("plain"):
            self.plain += 1
        elif action:
            self.words.insert(action)
            self.times.increment()


class Scratch(StateSpec):
    PATH = ("scratch",)
    SCOPE = StateScope.TOOL_CALL
    ACTION = int
    tries: int = 0
    total: GCounter = field(default_factory=GCounter)

    def reduce(self, action: int) -> None:
        self.tries = action
        self.total.increment(action)


STATES = StateRegistry([Cart, Seen, Scratch])


def add(item: str) -> AnyStateAction:
    return AnyStateAction.new(Cart, Add(item))


def saw(word: str) -> AnyStateAction:
    return AnyStateAction.new(Seen, word)


def test_5_3_default_valued_fields_are_materialised() -> None:
    document, patch = reduce_actions({}, [AnyStateAction.new(Cart, Empty())])
    assert patch == Patch((Set(("shop", "cart"), {"items": [], "changes": 0}),))
    assert document == {"shop": {"cart": {"items": [], "changes": 0}}}


def test_5_3_a_new_state_without_lattice_fields_is_one_set() -> None:
    _, patch = reduce_actions({}, [add("x")])
    assert patch == Patch((Set(("shop", "cart"), {"items": ["x"], "changes": 1, "note": "x"}),))


def test_5_3_an_old_state_changes_by_fields() -> None:
    before, _ = reduce_actions({}, [add("x")])
    _, patch = reduce_actions(before, [add("y")])
    assert patch == Patch(
        (
            Set(("shop", "cart", "items"), ["x", "y"]),
            Set(("shop", "cart", "changes"), 2),
            Set(("shop", "cart", "note"), "y"),
        )
    )


def test_5_3_an_optional_field_that_is_none_again_is_deleted() -> None:
    before, _ = reduce_actions({}, [add("x")])
    document, patch = reduce_actions(before, [AnyStateAction.new(Cart, Empty())])
    assert patch == Patch((Set(("shop", "cart", "items"), []), Delete(("shop", "cart", "note"))))
    assert document == {"shop": {"cart": {"items": [], "changes": 1}}}


def test_5_3_no_difference_no_patch() -> None:
    before, _ = reduce_actions({}, [add("x"), AnyStateAction.new(Cart, Empty())])
    document, patch = reduce_actions(before, [AnyStateAction.new(Cart, Empty())])
    assert not patch and document == before


def test_5_3_a_value_of_another_type_is_a_difference() -> None:
    class Loose(StateSpec):
        PATH = ("loose",)
        value: Any = 1

        def reduce(self, action: Any) -> None:
            self.value = action

    document, _ = reduce_actions({}, [AnyStateAction.new(Loose, 1)])
    _, patch = reduce_actions(document, [AnyStateAction.new(Loose, True)])
    assert patch == Patch((Set(("loose", "value"), True),)) and patch.ops


def test_5_3_a_state_with_lattice_fields_changes_by_fields_from_the_start() -> None:
    document, patch = reduce_actions({}, [saw("hi")], actor="call-1", registry=STATES.lattices)
    assert patch == Patch((LatticeMerge(("seen", "words"), ["hi"]), LatticeMerge(("seen", "times"), {"call-1": 1})))
    assert document == {"seen": {"words": ["hi"], "times": {"call-1": 1}}}
    assert not reduce_actions({}, [saw("")]).patch, "nothing differs from the defaults"


def test_5_3_a_lattice_field_is_merged_with_its_full_new_value() -> None:
    before, _ = reduce_actions({}, [saw("hi")], actor="call-1", registry=STATES.lattices)
    _, patch = reduce_actions(before, [saw("you")], actor="call-2", registry=STATES.lattices)
    assert patch.ops[0] == LatticeMerge(("seen", "words"), ["hi", "you"])


def test_5_3_plain_fields_beside_lattice_fields_are_set() -> None:
    _, patch = reduce_actions({}, [saw("plain")])
    assert patch == Patch((Set(("seen", "plain"), 4),))


def test_5_3_each_action_sees_what_the_one_before_did() -> None:
    document, patch = reduce_actions({}, [saw("plain"), saw("plain"), add("x"), add("y")])
    assert document["seen"]["plain"] == 5 and document["shop"]["cart"]["items"] == ["x", "y"]
    assert apply({}, patch) == document


def test_5_3_the_document_given_is_not_changed() -> None:
    before, _ = reduce_actions({}, [add("x")])
    reduce_actions(before, [add("y")])
    assert before["shop"]["cart"]["items"] == ["x"]


def test_5_3_keys_the_class_does_not_know_are_left_alone() -> None:
    before = {"shop": {"cart": {"items": ["x"], "changes": 1, "later": True}}}
    document, _ = reduce_actions(before, [add("y")])
    assert document["shop"]["cart"] == {"items": ["x", "y"], "changes": 2, "note": "y", "later": True}


def test_5_3_a_call_scoped_state_stands_below_its_call() -> None:
    action = AnyStateAction.new_for_call(Scratch, 2, "call.1")
    assert action.path == ("__tool_call_scope", "call.1", "scratch")
    document, _ = reduce_actions({}, [action], actor="call.1", registry=STATES.lattices)
    assert document == {"__tool_call_scope": {"call.1": {"scratch": {"tries": 2, "total": {"call.1": 2}}}}}
    found = state_at(document, Scratch, call_id="call.1")
    assert found is not None and found.tries == 2 and found.total.value == 2
    assert STATES.lattices.at((*action.path, "total")) is not None, "its lattice fields join whatever the call"


def test_5_3_a_state_may_stand_at_another_path() -> None:
    states = StateRegistry()
    states.register(Seen, at=("teams", "red"))
    action = AnyStateAction.new_at(Seen, ("teams", "red"), "hi")
    document, _ = reduce_actions({}, [action], actor="a", registry=states.lattices)
    assert document["teams"]["red"]["words"] == ["hi"]
    assert state_at(document, Seen) is None
    found = state_at(document, Seen, path=("teams", "red"))
    assert found is not None and "hi" in found.words
    assert states.lattices.at(("teams", "red", "words")) is not None


def test_5_3_the_constructor_of_another_scope_is_refused() -> None:
    with pytest.raises(WrongScope, match=r"Scratch has the scope tool_call; fix: .*AnyStateAction\.new_for_call"):
        AnyStateAction.new(Scratch, 1)
    with pytest.raises(WrongScope):
        AnyStateAction.new_at(Scratch, ("x",), 1)
    with pytest.raises(WrongScope, match=r"Cart has the scope thread; fix: .*AnyStateAction\.new$"):
        AnyStateAction.new_for_call(Cart, Empty(), "c")
    with pytest.raises(WrongScope):
        state_at({}, Scratch)
    with pytest.raises(WrongScope):
        state_at({}, Cart, call_id="c")


def test_5_3_an_action_is_written_when_it_is_made() -> None:
    made = Add("x")
    action = AnyStateAction.new(Cart, made)
    made.item = "changed afterwards"
    assert action.entry() == {
        "state_type_name": "Cart",
        "base_path": ["shop", "cart"],
        "scope": "thread",
        "payload": {"type": "add", "item": "x"},
    }
    document, _ = reduce_actions({}, [action])
    assert document["shop"]["cart"]["items"] == ["x"], "what was written is what is reduced"


def test_5_3_the_entry_of_a_call_names_the_call_and_who_acts() -> None:
    entry = AnyStateAction.new_for_call(Scratch, 2, "c1").by("c1").by("somebody else").entry()
    assert entry == {
        "state_type_name": "Scratch",
        "base_path": ["scratch"],
        "scope": "tool_call",
        "call_id_override": "c1",
        "payload": 2,
        "actor": "c1",
    }


@pytest.mark.parametrize("action", [Empty, {"type": "unknown"}, 5, {"type": "add", "item": 5}, object()])
def test_5_3_an_action_the_state_does_not_know_is_refused_at_once(action: Any) -> None:
    with pytest.raises(BadAction, match="action for state class Cart is refused"):
        AnyStateAction.new(Cart, action)


def test_5_3_the_intent_log_replays_to_the_same_document() -> None:
    actions = [
        add("x"),
        saw("a").by("c1"),
        AnyStateAction.new_for_call(Scratch, 2, "c1").by("c1"),
        saw("plain"),
        add("y"),
    ]
    document, _ = reduce_actions({}, actions, registry=STATES.lattices)
    log = msgspec.json.decode(msgspec.json.encode([action.entry() for action in actions]))
    assert STATES.replay({}, log).document == document


def test_5_3_a_log_that_cannot_be_read_is_refused_before_anything_is_reduced() -> None:
    entry = add("x").entry()
    with pytest.raises(UnknownState, match="state class 'Gone' is not registered; known: Cart, Scratch, Seen"):
        STATES.replay({}, [entry, {**entry, "state_type_name": "Gone"}])
    for broken in ({**entry, "payload": 5}, {**entry, "scope": "run"}, {"state_type_name": "Cart"}, {}):
        with pytest.raises(BadAction):
            STATES.replay({}, [broken])
    with pytest.raises(BadAction):
        STATES.replay({}, [{**AnyStateAction.new_for_call(Scratch, 1, "c").entry(), "call_id_override": None}])


def test_5_3_two_classes_of_one_name_are_refused() -> None:
    class Other(StateSpec):
        PATH = ("other",)
        NAME = "Cart"

        def reduce(self, action: Any) -> None: ...

    with pytest.raises(NameTaken, match="another state class is registered as 'Cart'"):
        StateRegistry([Cart, Other])
    StateRegistry([Cart, Cart])


def test_5_3_a_state_class_may_say_its_name() -> None:
    class Renamed(StateSpec):
        PATH = ("x",)
        NAME = "old-name"

        def reduce(self, action: Any) -> None: ...

    assert AnyStateAction.new(Renamed, 1).entry()["state_type_name"] == "old-name"


def test_a_state_that_raises_changes_nothing_and_is_named() -> None:
    with pytest.raises(ReduceFailed, match=r"Cart\.reduce for \$\.shop\.cart raised RuntimeError\('no such item'\)"):
        reduce_actions({}, [add("x"), add("bad")])


def test_counting_without_an_actor_is_refused() -> None:
    with pytest.raises(ActorNeeded, match="GCounter needs an actor"):
        reduce_actions({}, [saw("x")])


def test_what_is_not_the_state_is_refused_by_its_path() -> None:
    for stored in ({"items": "no list"}, [1], {"items": [1]}):
        with pytest.raises(StateUnreadable, match=r"\$\.shop\.cart cannot be read as Cart"):
            reduce_actions({"shop": {"cart": stored}}, [add("x")])
    with pytest.raises(StateUnreadable, match=r"\$\.seen cannot be read as Seen"):
        state_at({"seen": {"words": 5}}, Seen)


def test_null_counts_as_no_state() -> None:
    assert state_at({"seen": None}, Seen) is None
    document, _ = reduce_actions({"shop": {"cart": None}}, [AnyStateAction.new(Cart, Empty())])
    assert document["shop"]["cart"] == {"items": [], "changes": 0}


def test_a_field_that_is_not_json_is_refused_by_its_path() -> None:
    class Wild(StateSpec):
        PATH = ("wild",)
        anything: Any = None

        def reduce(self, action: Any) -> None:
            self.anything = float("nan")

    with pytest.raises(BadValue, match=r"value at \$\.wild\.anything is not JSON"):
        reduce_actions({}, [AnyStateAction.new(Wild, 1)])


def test_a_state_class_declared_wrongly_is_refused_when_it_is_used() -> None:
    class NoPath(StateSpec):
        def reduce(self, action: Any) -> None: ...

    class Dotted(StateSpec):
        PATH = "shop.cart"  # type: ignore[assignment]

        def reduce(self, action: Any) -> None: ...

    class NoDefault(StateSpec):
        PATH = ("x",)
        needed: int

        def reduce(self, action: Any) -> None: ...

    class NoReduce(StateSpec):
        PATH = ("x",)

    class Hiding(StateSpec):
        PATH = ("x",)
        read: bool = False  # type: ignore[assignment]

        def reduce(self, action: Any) -> None: ...

    with pytest.raises(BadSpec, match="fields that hide methods of every state: read"):
        StateRegistry([Hiding])
    with pytest.raises(BadSpec, match="state class NoPath: it needs a PATH"):
        StateRegistry([NoPath])
    with pytest.raises(BadSpec, match=r"use a tuple of keys, e.g. \('shop', 'cart'\)"):
        StateRegistry([Dotted])
    with pytest.raises(BadSpec, match="fields without a default: needed"):
        AnyStateAction.new(NoDefault, 1)
    with pytest.raises(BadSpec, match="it needs a reduce"):
        StateRegistry([NoReduce])


def test_calls_of_one_round_that_touch_one_lattice_field_join() -> None:
    """Two calls start from one snapshot, each counts under its own id: neither loses anything."""
    before, _ = reduce_actions({}, [saw("a")], actor="c0", registry=STATES.lattices)
    patches = [
        reduce_actions(before, [saw(word), saw("both")], actor=call, registry=STATES.lattices).patch
        for word, call in (("b", "c1"), ("c", "c2"))
    ]
    assert conflicts(patches, STATES.lattices) == []
    found = state_at(apply_all(before, patches, STATES.lattices), Seen)
    assert found is not None and list(found.words) == ["a", "b", "both", "c"] and found.times.value == 5


def test_calls_of_one_round_that_touch_one_plain_field_conflict() -> None:
    patches = [reduce_actions({}, [saw("plain")]).patch for _ in range(2)]
    assert [conflict.path for conflict in conflicts(patches, STATES.lattices)] == [("seen", "plain")]


@dataclass
class Tally:
    words: GSet[str] = dataclass_field(default_factory=GSet)
    times: GCounter = dataclass_field(default_factory=GCounter)


class Tallies(StateSpec):
    PATH = ("tallies",)
    ACTION = str
    all: Tally = field(default_factory=Tally)
    by_kind: ORMap[str, Tally] = field(default_factory=ORMap)

    def reduce(self, action: str) -> None:
        self.all.words.insert(action)
        self.all.times.increment()
        self.by_kind.put(action[0], Tally())
        kind = self.by_kind.get(action[0])
        assert kind is not None
        kind.words.insert(action)
        kind.times.increment()


def test_a_field_may_be_a_class_of_lattices() -> None:
    states = StateRegistry([Tallies])
    patches = [
        reduce_actions({}, [AnyStateAction.new(Tallies, word)], actor=actor, registry=states.lattices).patch
        for word, actor in (("moon", "c1"), ("mars", "c2"))
    ]
    assert [op.path for op in patches[0].ops] == [("tallies", "all"), ("tallies", "by_kind")]
    assert conflicts(patches, states.lattices) == []
    document = apply_all({}, patches, states.lattices)
    assert document["tallies"]["all"] == {"words": ["mars", "moon"], "times": {"c1": 1, "c2": 1}}
    found = state_at(document, Tallies)
    assert found is not None and found.all.times.value == 2
    kind = found.by_kind.get("m")
    assert kind is not None and list(kind.words) == ["mars", "moon"] and kind.times.value == 2


def test_a_state_whose_annotation_cannot_be_found_is_refused() -> None:
    class Lost(StateSpec):
        PATH = ("lost",)
        what: "Nowhere | None" = None  # type: ignore[name-defined]  # noqa: F821

        def reduce(self, action: Any) -> None: ...

    with pytest.raises(BadSpec, match=r"state class Lost: name 'Nowhere' is not defined; fix: define what"):
        StateRegistry([Lost])


def test_a_state_without_its_actor_still_reads_and_writes() -> None:
    fresh = Seen()
    assert fresh.write() == {"plain": 3, "words": [], "times": {}} and Seen.read(None) == fresh == Seen.read({})


def test_what_binds_children_is_cut_out_of_a_document_as_it_stands() -> None:
    class Rules(StateSpec):
        PATH = ("deep", "rules")
        BINDS_CHILDREN = True

        def reduce(self, action: Any) -> None: ...

    states = StateRegistry([Cart, Rules])
    states.register(Rules, at=("elsewhere",))
    document = {"cart": {}, "deep": {"rules": "unreadable", "other": 1}, "elsewhere": None}
    assert states.binding(document) == {"deep": {"rules": "unreadable"}, "elsewhere": None}
    assert states.binding({"cart": {}}) == {}


def test_a_state_of_one_call_binds_no_children() -> None:
    class OfACall(StateSpec):
        PATH = ("x",)
        SCOPE = StateScope.TOOL_CALL
        BINDS_CHILDREN = True

        def reduce(self, action: Any) -> None: ...

    with pytest.raises(BadSpec, match="BINDS_CHILDREN is for states of a thread or a run"):
        StateRegistry([OfACall])
