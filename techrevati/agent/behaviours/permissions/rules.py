"""Permission rules: a tool pattern, patterns of its arguments, and what then holds.

    "deny shell(command=rm *)"  ──parse_rule──▶  Rule  ──matches(tool, args)──▶  yes or no

A rule's text is its identity: it is what is stored, shown and revoked.  Globs and regular expressions
must match the *whole* value; ``.`` and ``*`` match newlines too, so that a line break dodges nothing.
"""

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from techrevati.agent.errors import AgentError

MAX_SUBJECT = 16_384
"""Characters of one argument that a pattern is tried on.  A longer one counts as matched by a denial or a
question and as not matched by an allowance: what cannot be looked at is not waved through."""

ANY = "*"
"""Names any value, at any depth of the arguments."""

WHOLE = "$"
"""Names all arguments at once, as one JSON object."""

_RULE = re.compile(r"(allow|deny|ask)\s+([^\s()]+)\s*(?:\((.*)\))?", re.DOTALL)
_CONDITION = re.compile(r"\s*([^\s=~,()]+)\s*([=~])\s*(\"(?:[^\"\\]|\\.)*\"|[^,\"()]*)\s*(,|\Z)", re.DOTALL)
_WILD = re.compile(r"\*|\?|\[[^\]]*\]")


class BadRule(AgentError):
    """A text that is not a permission rule."""

    def __init__(self, text: str, cause: str) -> None:
        super().__init__(text, cause)
        self.text, self.cause = text, cause

    def __str__(self) -> str:
        return (
            f"permission rule {self.text!r} is refused: {self.cause}; fix: write 'allow|deny|ask TOOL' or "
            "'TOOL(argument=glob, argument~\"regex\")', a value with commas or brackets in double quotes"
        )


class Effect(StrEnum):
    """What a rule says of the calls it matches; denials beat allowances, allowances beat questions."""

    DENY = "deny"
    ALLOW = "allow"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Condition:
    """One argument's pattern: `argument` is a key, a dotted path, `ANY` or `WHOLE`.

    What is not a string is matched as its JSON text, keys sorted.
    """

    argument: str
    pattern: str
    regex: bool = False

    def __str__(self) -> str:
        plain = re.fullmatch(r"[^\s,\"()]+(?: +[^\s,\"()]+)*", self.pattern)
        return f"{self.argument}{'~' if self.regex else '='}{self.pattern if plain else json.dumps(self.pattern)}"


@dataclass(frozen=True, slots=True)
class Rule:
    """`effect` for calls of tools like the glob `tool` whose arguments meet every condition."""

    effect: Effect
    tool: str
    conditions: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        arguments = ", ".join(map(str, self.conditions))
        return f"{self.effect} {self.tool}({arguments})" if arguments else f"{self.effect} {self.tool}"

    @property
    def specificity(self) -> tuple[bool, int, int, int]:
        """How narrow the rule is: of two that match, the larger one names the reason."""
        literal = sum(len(_WILD.sub("", condition.pattern)) for condition in self.conditions)
        return not _WILD.search(self.tool), len(_WILD.sub("", self.tool)), len(self.conditions), literal


def allow(tool: str, **arguments: str | re.Pattern[str]) -> Rule:
    """Let calls of `tool` through; a string is a glob of the argument, a compiled pattern a regular expression."""
    return _rule(Effect.ALLOW, tool, arguments)


def deny(tool: str, **arguments: str | re.Pattern[str]) -> Rule:
    """Refuse calls of `tool`; without arguments the model does not see the tool at all."""
    return _rule(Effect.DENY, tool, arguments)


def ask(tool: str, **arguments: str | re.Pattern[str]) -> Rule:
    """Have calls of `tool` wait for a person's answer."""
    return _rule(Effect.ASK, tool, arguments)


def _rule(effect: Effect, tool: str, arguments: Mapping[str, str | re.Pattern[str]]) -> Rule:
    conditions = (
        Condition(name, value, regex=False) if isinstance(value, str) else Condition(name, value.pattern, regex=True)
        for name, value in arguments.items()
    )
    return parse_rule(str(Rule(effect, tool, tuple(conditions))))


def parse_rule(text: str) -> Rule:
    """Read a rule's text; ``str()`` of what comes back is its canonical form.

    Raises:
        BadRule: not of the form ``effect TOOL(argument=glob, argument~"regex")``.
    """
    match = _RULE.fullmatch(text.strip())
    if match is None:
        raise BadRule(text, "it does not read 'effect tool' or 'effect tool(conditions)'")
    effect, tool, inside = match.groups()
    conditions: list[Condition] = []
    at, more = 0, inside is not None and bool(inside.strip())
    while more:
        found = _CONDITION.match(inside, at)
        if found is None:
            raise BadRule(text, f"no 'argument=glob' or 'argument~\"regex\"' at {inside[at:].strip()!r}")
        argument, operator, value, comma = found.groups()
        conditions.append(_condition(text, argument, operator == "~", value.strip()))
        at, more = found.end(), comma == ","
    return Rule(Effect(effect), tool, tuple(sorted(conditions, key=str)))


def _condition(text: str, argument: str, regex: bool, value: str) -> Condition:
    if value.startswith('"'):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadRule(text, f"{value} is not a JSON string") from error
    if regex:
        try:
            _compiled(value, True)
        except re.error as error:
            raise BadRule(text, f"{value!r} is not a regular expression: {error}") from error
    return Condition(argument, value, regex)


@lru_cache(maxsize=4096)
def _compiled(pattern: str, regex: bool) -> re.Pattern[str]:
    return re.compile(pattern if regex else fnmatch.translate(pattern), re.DOTALL)


def is_tool_match(rule: Rule, tool: str) -> bool:
    """Tell whether the rule's tool pattern covers a tool, whatever the arguments."""
    return _compiled(rule.tool, False).fullmatch(tool) is not None


def matches(rule: Rule, tool: str, arguments: Mapping[str, Any]) -> bool:
    """Tell whether a rule covers one call.  An absent argument meets no condition."""
    return is_tool_match(rule, tool) and all(_is_met(rule, condition, arguments) for condition in rule.conditions)


def _is_met(rule: Rule, condition: Condition, arguments: Mapping[str, Any]) -> bool:
    pattern = _compiled(condition.pattern, condition.regex)
    for value in _values(condition.argument, arguments):
        subject = _text(value)
        if len(subject) > MAX_SUBJECT:
            if rule.effect is not Effect.ALLOW:
                return True
        elif pattern.fullmatch(subject):
            return True
    return False


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _values(argument: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
    if argument == WHOLE:
        yield dict(arguments)
        return
    if argument == ANY:
        yield from _leaves(arguments)
        return
    if argument in arguments:  # a key may itself contain a dot
        yield arguments[argument]
        return
    value: Any = arguments
    for key in argument.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return
        value = value[key]
    yield value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def exactly(effect: Effect, tool: str, arguments: Mapping[str, Any]) -> Rule:
    """Give the rule for a call with these arguments and no others, wildcards in them taken literally."""
    return Rule(effect, _escaped(tool), (Condition(WHOLE, _escaped(_text(arguments))),))


def _escaped(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)
