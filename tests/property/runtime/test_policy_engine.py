"""Combinators and engine for any tree of conditions, sync and async alike."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.runtime import (
    PhaseContext,
    PolicyAction,
    PolicyActionData,
    PolicyCondition,
    PolicyEngine,
    PolicyRule,
)
from techrevati.runtime.policy_engine import And, Or


class Now(PolicyCondition):
    def __init__(self, answer: bool) -> None:
        self.answer = answer

    def matches(self, ctx: PhaseContext) -> bool:
        return self.answer


class Later(Now):
    async def matches(self, ctx: PhaseContext) -> bool:  # type: ignore[override]
        return self.answer


def truth(node: Any) -> bool:
    if isinstance(node, bool):
        return node
    kind, parts = node
    return all(map(truth, parts)) if kind == "and" else any(map(truth, parts))


def built(node: Any, leaves: list[type[Now]]) -> Any:
    if isinstance(node, bool):
        return leaves.pop()(node) if leaves else Now(node)
    kind, parts = node
    return (And if kind == "and" else Or)([built(part, leaves) for part in parts])


trees = st.recursive(st.booleans(), lambda part: st.tuples(st.sampled_from(["and", "or"]), st.lists(part, max_size=4)))


@settings(deadline=None)
@given(trees)
def test_sync_trees_are_boolean_algebra(tree: Any) -> None:
    assert built(tree, []).matches(PhaseContext()) is truth(tree)


@settings(deadline=None)
@given(trees, st.lists(st.sampled_from([Now, Later]), max_size=20))
def test_mixed_trees_give_the_same_answer(tree: Any, leaves: list[type[Now]]) -> None:
    engine = PolicyEngine([PolicyRule("r", built(tree, leaves), [PolicyActionData(PolicyAction.NOTIFY)])])
    assert bool(asyncio.run(engine.evaluate_async(PhaseContext()))) is truth(tree)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=20))
def test_actions_come_by_priority_then_order(rules: list[tuple[int, bool]]) -> None:
    engine = PolicyEngine(
        [
            PolicyRule(str(n), Now(yes), [PolicyActionData(PolicyAction.NOTIFY, {"n": n})], priority)
            for n, (priority, yes) in enumerate(rules)
        ]
    )
    got = [(action.params or {})["n"] for action in engine.evaluate(PhaseContext())]
    assert got == sorted((n for n, (_, yes) in enumerate(rules) if yes), key=lambda n: rules[n][0])
