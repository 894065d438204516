"""Whatever actions come: the patch leads to the document, and the log leads there again."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import field

from techrevati.agent.state import (
    AnyStateAction,
    Flag,
    GCounter,
    GSet,
    MaxReg,
    ORMap,
    ORSet,
    Reduced,
    StateRegistry,
    StateScope,
    StateSpec,
    apply,
    apply_all,
    conflicts,
    reduce_actions,
    state_at,
)
from techrevati.agent.state.values import same


class Plain(StateSpec):
    PATH = ("plain",)
    ACTION = int
    items: list[int] = field(default_factory=list)
    by_size: dict[str, int] = field(default_factory=dict)
    last: int | None = None
    note: str = "none yet"

    def reduce(self, action: int) -> None:
        if action < 0:
            self.items, self.last = self.items[1:], None
            self.by_size.pop("small", None)
        else:
            self.items.append(action)
            self.by_size["small" if action < 3 else "big"] = action
            self.last = action


class Merged(StateSpec):
    PATH = ("deep", "merged")
    ACTION = int
    on: Flag = field(default_factory=Flag)
    most: MaxReg[int] = field(default_factory=MaxReg)
    total: GCounter = field(default_factory=GCounter)
    seen: GSet[int] = field(default_factory=GSet)
    open: ORSet[int] = field(default_factory=ORSet)
    counts: ORMap[str, GCounter] = field(default_factory=ORMap)

    def reduce(self, action: int) -> None:
        if action < 0:
            self.open.remove(-action)
            self.counts.remove(str(-action))
            return
        if action > 3:
            self.on.enable()
        self.most.set(max(action, self.most.value or 0))
        self.total.increment(action)
        self.seen.insert(action)
        self.open.insert(action)
        self.counts.put(str(action), GCounter())
        count = self.counts.get(str(action))
        assert count is not None
        count.increment()


class OfCall(StateSpec):
    PATH = ("tries",)
    SCOPE = StateScope.TOOL_CALL
    ACTION = int
    numbers: list[int] = field(default_factory=list)

    def reduce(self, action: int) -> None:
        self.numbers.append(action)


STATES = StateRegistry([Plain, Merged, OfCall])
NUMBERS = st.integers(-4, 5)
ACTIONS = st.one_of(
    st.builds(lambda n: AnyStateAction.new(Plain, n), NUMBERS),
    st.builds(lambda n: AnyStateAction.new(Merged, n), NUMBERS),
    st.builds(lambda n, call: AnyStateAction.new_for_call(OfCall, n, call), NUMBERS, st.sampled_from(["c.1", "c2"])),
)
MERGES = st.lists(st.builds(lambda n: AnyStateAction.new(Merged, n), NUMBERS), max_size=4)


def reduced(document: Any, actions: list[AnyStateAction], actor: str = "a") -> Reduced:
    return reduce_actions(document, actions, actor=actor, registry=STATES.lattices)


@given(st.lists(ACTIONS, max_size=6), st.lists(ACTIONS, max_size=6))
@settings(max_examples=150)
def test_the_patch_leads_to_the_document_and_actions_may_be_cut_anywhere(
    first: list[AnyStateAction], then: list[AnyStateAction]
) -> None:
    middle, one = reduced({}, first)
    document, other = reduced(middle, then)
    whole, patch = reduced({}, [*first, *then])
    assert same(whole, document) and patch == one + other
    assert same(apply({}, patch, STATES.lattices), document)
    assert same(apply({}, patch.canonicalize(), STATES.lattices), document)
    assert same(apply(middle, other.canonicalize(), STATES.lattices), document)


@given(st.lists(ACTIONS, max_size=8))
def test_the_log_leads_to_the_document_again(actions: list[AnyStateAction]) -> None:
    actions = [action.by("a") for action in actions]
    document, _ = reduced({}, actions)
    log = msgspec.json.decode(msgspec.json.encode([action.entry() for action in actions]))
    assert same(STATES.replay({}, log).document, document)


@given(MERGES, st.lists(MERGES, min_size=2, max_size=4))
@settings(max_examples=150)
def test_calls_of_a_round_merge_whatever_they_did(
    before: list[AnyStateAction], calls: list[list[AnyStateAction]]
) -> None:
    """Nothing a call counted or saw is lost, in any order; and reading the outcome again changes nothing."""
    start, _ = reduced({}, before, "before")
    patches = [reduced(start, actions, f"call-{index}").patch for index, actions in enumerate(calls)]
    assert conflicts(patches, STATES.lattices) == []
    document = apply_all(start, patches, STATES.lattices)
    assert same(apply_all(start, patches[::-1], STATES.lattices), document)
    assert same(apply_all(document, patches, STATES.lattices), document)
    found = state_at(document, Merged) or Merged()
    did = [action.payload for actions in [before, *calls] for action in actions]
    assert found.total.value == sum(n for n in did if n >= 0)
    assert set(found.seen) == {n for n in did if n >= 0}
    assert bool(found.on) == any(n > 3 for n in did)
    untouched = {n for n in did if n >= 0} - {-n for n in did if n < 0}
    assert untouched <= set(found.open) and {str(n) for n in untouched} <= set(found.counts.keys())
