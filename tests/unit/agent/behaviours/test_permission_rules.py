"""Permission rules as text, and what they cover."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.agent.behaviours.permissions.policy import Layer, Policy, Verdict, decide, hidden, match
from techrevati.agent.behaviours.permissions.rules import (
    MAX_SUBJECT,
    BadRule,
    Effect,
    Rule,
    allow,
    ask,
    deny,
    exactly,
    matches,
    parse_rule,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("deny shell", "deny shell"),
        ("  allow   mcp__github__*  ", "allow mcp__github__*"),
        ("ask shell()", "ask shell"),
        ("allow shell(command=git *)", "allow shell(command=git *)"),
        ('allow shell(command~"git (status|log)")', 'allow shell(command~"git (status|log)")'),
        ('deny write(path="a, b", mode=w)', 'deny write(mode=w, path="a, b")'),
        ("deny x(a=)", 'deny x(a="")'),
    ],
)
def test_12_4_a_rule_is_its_text(text: str, canonical: str) -> None:
    rule = parse_rule(text)
    assert str(rule) == canonical
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    ["", "shell", "permit shell", "deny", "deny two words", "deny shell(", "deny shell(command)", "deny shell(a=b,)",
     "deny shell(a=b c=d=(e))", 'deny shell(a~"(")', 'deny shell(a="\\x")'],
)  # fmt: skip
def test_12_4_a_text_that_is_no_rule_is_refused_and_named(text: str) -> None:
    with pytest.raises(BadRule, match="fix:") as caught:
        parse_rule(text)
    assert caught.value.text == text


def test_12_4_a_bad_regular_expression_is_refused_when_written_not_when_used() -> None:
    with pytest.raises(BadRule, match="not a regular expression"):
        parse_rule('deny shell(command~"[")')


names = st.from_regex(r"[a-z_][a-z0-9_.]{0,8}", fullmatch=True)
values = st.text(max_size=12)


@settings(max_examples=150)
@given(st.sampled_from(Effect), names, st.dictionaries(names, values, max_size=3))
def test_12_4_every_rule_survives_being_stored_as_text(kind: Effect, tool: str, arguments: dict[str, str]) -> None:
    build = {Effect.ALLOW: allow, Effect.DENY: deny, Effect.ASK: ask}[kind]
    rule = build(tool, **arguments)
    assert parse_rule(str(rule)) == rule
    assert {c.argument: c.pattern for c in rule.conditions} == arguments


@settings(max_examples=150)
@given(st.dictionaries(values, st.recursive(st.none() | st.integers() | values, st.lists, max_leaves=3), max_size=3))
def test_12_4_an_exact_rule_covers_its_call_and_no_other(arguments: dict[str, object]) -> None:
    rule = parse_rule(str(exactly(Effect.ALLOW, "tool", arguments)))
    assert matches(rule, "tool", arguments)
    assert not matches(rule, "tool", {**arguments, "one more\0": 1})
    assert not matches(rule, "tools", arguments)


@pytest.mark.parametrize(
    ("rule", "arguments", "covered"),
    [
        ("allow t(command=git *)", {"command": "git status"}, True),
        ("allow t(command=git *)", {"command": "sudo git status"}, False),
        ('allow t(command~"git status")', {"command": "git status; rm -rf /"}, False),
        ("deny t(command=*rm -rf*)", {"command": "echo\nrm -rf /"}, True),
        ("deny t(command=*rm*)", {"command": ["rm", "-rf"]}, True),
        ("deny t(options.force=true)", {"options": {"force": True}}, True),
        ("deny t(options.force=true)", {"options": {"force": False}}, False),
        ("deny t(options.force=true)", {"options.force": True}, True),
        ("deny t(options.force=true)", {"options": "true"}, False),
        ("deny t(command=*)", {}, False),
        ("deny t(*=*/etc/shadow*)", {"files": [{"path": "/etc/shadow"}]}, True),
        ("deny t(*=*/etc/shadow*)", {"files": [{"path": "/etc/hosts"}]}, False),
        ("deny T", {}, False),
    ],
)
def test_12_4_patterns_cover_whole_values(rule: str, arguments: dict[str, object], covered: bool) -> None:
    assert matches(parse_rule(rule), "t", arguments) is covered


def test_12_4_what_is_too_long_to_look_at_is_not_waved_through() -> None:
    long = {"command": "git " + "x" * MAX_SUBJECT}
    assert not matches(allow("t", command="git *"), "t", long)
    assert matches(deny("t", command="rm *"), "t", long)
    assert matches(ask("t", command=re.compile("rm .*")), "t", long)


def layer(*rules: Rule, default: Effect = Effect.ASK, remembered: Sequence[Rule] = (), corrupt: bool = False) -> Layer:
    return Layer(Policy(rules, default), tuple(remembered), corrupt)


def effect(tool: str, arguments: dict[str, object], *layers: Layer) -> Effect:
    return decide(tool, arguments, layers).effect


def test_12_4_deny_beats_allow_beats_ask() -> None:
    rules = layer(ask("shell"), allow("*"), deny("sh*", command="rm *"))
    assert effect("shell", {"command": "rm x"}, rules) is Effect.DENY
    assert effect("shell", {"command": "ls"}, rules) is Effect.ALLOW
    assert effect("shell", {}, layer(ask("shell"), default=Effect.ALLOW)) is Effect.ASK


def test_12_4_the_order_of_rules_does_not_matter() -> None:
    rules = [deny("a"), allow("*"), ask("b"), allow("b", x="1")]
    for tool, arguments in (("a", {}), ("b", {"x": 1}), ("b", {}), ("c", {})):
        assert match(rules, tool, arguments) == match(rules[::-1], tool, arguments)


def test_12_4_inside_a_tier_the_most_specific_rule_names_the_reason() -> None:
    rules = [deny("*"), deny("sh*"), deny("shell"), deny("shell", command="rm *"), deny("shell", command="rm -rf *")]
    found = match(rules, "shell", {"command": "rm -rf /"})
    assert found is not None
    assert str(found.rule) == "deny shell(command=rm -rf *)"


def test_12_4_what_no_rule_covers_is_asked() -> None:
    assert decide("anything", {}, [layer()]) == Verdict(Effect.ASK, None)


def test_12_4_an_answer_overrides_a_default_but_no_denial() -> None:
    assert effect("mail", {}, layer(default=Effect.DENY, remembered=[allow("mail")])) is Effect.ALLOW
    assert effect("mail", {}, layer(deny("mail"), remembered=[allow("mail")])) is Effect.DENY
    assert effect("mail", {}, layer(allow("mail"), remembered=[deny("mail")])) is Effect.DENY
    assert effect("mail", {}, layer(allow("mail"), remembered=[ask("mail")])) is Effect.ASK


def test_12_4_a_child_inherits_denials_and_questions() -> None:
    parent = layer(deny("shell"), ask("mail"), allow("read"), default=Effect.ALLOW)
    child = layer(allow("*"))
    assert effect("shell", {}, parent, child) is Effect.DENY
    assert effect("mail", {}, parent, child) is Effect.ASK
    assert effect("read", {}, parent, child) is Effect.ALLOW
    stricter = layer(deny("read"))
    assert effect("read", {}, parent, stricter) is Effect.DENY
    assert effect("other", {}, parent, stricter) is Effect.ASK
    closed = layer(default=Effect.DENY)
    assert effect("read", {}, closed, layer(allow("*"), remembered=[allow("*")])) is Effect.DENY


def test_12_4_an_answer_holds_for_the_child_of_whoever_was_asked() -> None:
    asked_parent = layer(ask("mail"), remembered=[allow("mail")])
    assert effect("mail", {}, asked_parent, layer(allow("mail"))) is Effect.ALLOW
    assert effect("mail", {}, asked_parent, layer(ask("mail"))) is Effect.ASK
    assert effect("mail", {}, layer(ask("mail")), layer(remembered=[allow("mail")])) is Effect.ALLOW
    assert effect("mail", {}, layer(deny("mail")), layer(remembered=[allow("mail")])) is Effect.DENY


def test_12_4_unreadable_state_allows_nothing_and_still_denies() -> None:
    broken = layer(allow("read"), deny("shell"), default=Effect.ALLOW, remembered=[allow("*")], corrupt=True)
    for tool, found in (("read", Effect.ASK), ("shell", Effect.DENY), ("other", Effect.ASK)):
        assert effect(tool, {}, broken) is found
        assert effect(tool, {}, layer(default=Effect.ALLOW), broken) is found


def test_12_4_only_what_every_call_is_denied_is_hidden() -> None:
    layers = [layer(deny("mcp__*"), deny("shell", command="rm *"), allow("mcp__a__b"), ask("mail"))]
    assert hidden(["mcp__a__b", "shell", "mail"], layers) == ["mcp__a__b"]
    closed = [layer(allow("read"), deny("shell", command="x"), default=Effect.DENY, remembered=[ask("mail")])]
    assert hidden(["read", "shell", "mail", "other"], closed) == ["shell", "other"]
