"""Laws of permissions, whatever the rules are."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.agent.behaviours.permissions.policy import Layer, Policy, decide, hidden
from techrevati.agent.behaviours.permissions.rules import Condition, Effect, Rule, matches, parse_rule

STRICTNESS = {Effect.ALLOW: 0, Effect.ASK: 1, Effect.DENY: 2}
TOOLS = ["read", "read_all", "shell", "mcp__a__b"]

tools = st.sampled_from([*TOOLS, "*", "read*", "mcp__*", "?hell", "[rs]*"])
conditions = st.builds(
    Condition,
    st.sampled_from(["path", "options.force", "*", "$"]),
    st.sampled_from(["*", "/srv/*", "true", "x", '{"path": "x"}', "*x*"]),
)
rules = st.builds(Rule, st.sampled_from(Effect), tools, st.lists(conditions, max_size=2, unique=True).map(tuple))
some = st.lists(rules, max_size=5).map(tuple)
layers = st.builds(Layer, st.builds(Policy, some, st.sampled_from(Effect)), some, st.booleans())
calls = st.tuples(
    st.sampled_from(TOOLS),
    st.sampled_from([{}, {"path": "/srv/a"}, {"path": "x"}, {"path": ["x"], "options": {"force": True}}]),
)


def strictness(call: Any, *chain: Layer) -> int:
    return STRICTNESS[decide(call[0], call[1], chain).effect]


@settings(max_examples=300, deadline=None)
@given(calls, st.lists(layers, min_size=1, max_size=3), rules, st.data())
def test_12_4_a_denial_anywhere_never_makes_anything_freer(
    call: Any, chain: list[Layer], rule: Rule, data: st.DataObject
) -> None:
    denial = Rule(Effect.DENY, rule.tool, rule.conditions)
    at = data.draw(st.integers(0, len(chain) - 1))
    changed = list(chain)
    changed[at] = Layer(
        Policy((*chain[at].policy.rules, denial), chain[at].policy.default), chain[at].remembered, chain[at].is_corrupt
    )
    assert strictness(call, *changed) >= strictness(call, *chain)
    if matches(denial, *call):
        assert strictness(call, *changed) == 2


@settings(max_examples=300, deadline=None)
@given(calls, st.lists(layers, min_size=1, max_size=2), layers)
def test_12_4_what_a_child_declares_never_makes_it_freer_than_its_parent(
    call: Any, chain: list[Layer], child: Layer
) -> None:
    declared = Layer(child.policy, tuple(rule for rule in child.remembered if rule.effect is not Effect.ALLOW))
    assert strictness(call, *chain, declared) >= strictness(call, *chain)


@settings(max_examples=300, deadline=None)
@given(calls, st.lists(layers, min_size=1, max_size=3), st.randoms())
def test_12_4_the_order_of_rules_means_nothing(call: Any, chain: list[Layer], random: Any) -> None:
    def shuffled(found: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(random.sample(found, len(found)))

    other = [
        Layer(Policy(shuffled(each.policy.rules), each.policy.default), shuffled(each.remembered), each.is_corrupt)
        for each in chain
    ]
    assert decide(call[0], call[1], chain) == decide(call[0], call[1], other)


@settings(max_examples=300, deadline=None)
@given(calls, st.lists(layers, min_size=1, max_size=3))
def test_12_4_a_hidden_tool_is_denied_whatever_the_arguments(call: Any, chain: list[Layer]) -> None:
    if call[0] in hidden(TOOLS, chain):
        assert strictness(call, *chain) == 2


@settings(max_examples=300, deadline=None)
@given(calls, st.lists(layers, min_size=1, max_size=3), st.data())
def test_12_4_what_cannot_be_read_never_makes_anything_freer(
    call: Any, chain: list[Layer], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(chain) - 1))
    broken = [Layer(each.policy, each.remembered, each.is_corrupt or n == at) for n, each in enumerate(chain)]
    assert strictness(call, *broken) >= max(1, strictness(call, *chain))


@settings(max_examples=300, deadline=None)
@given(rules)
def test_12_4_a_rule_s_text_says_all_of_it(rule: Rule) -> None:
    again = parse_rule(str(rule))
    assert (again.effect, again.tool, set(again.conditions)) == (rule.effect, rule.tool, set(rule.conditions))
