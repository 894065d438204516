"""What the permission rules that hold for a call add up to.

    root agent's layer ─▶ … ─▶ parent's layer ─▶ own layer ──decide──▶ Verdict
    layer: declared rules and default, and the rules that people gave in answer

Inside one set of rules deny beats allow, allow beats ask, and what no rule covers has the default (ask).
Along the layers a denial of any of them holds, and a question is asked unless a person answered it at that
layer or below: an agent's own declarations never make it freer than its parent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from techrevati.agent.behaviours.permissions.rules import Effect, Rule, is_tool_match, matches

_TIERS = (Effect.DENY, Effect.ALLOW, Effect.ASK)
_STRICT = (Effect.DENY, Effect.ASK, Effect.ALLOW)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules and what holds without one."""

    rules: tuple[Rule, ...] = ()
    default: Effect = Effect.ASK


@dataclass(frozen=True, slots=True)
class Layer:
    """What holds in one agent: its policy, and what people answered there.

    `is_corrupt` says that something stored cannot be read; as it may have been a denial, nothing is allowed.
    """

    policy: Policy
    remembered: tuple[Rule, ...] = ()
    is_corrupt: bool = False

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self.policy.rules + self.remembered


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a call, and the rule that says so; None is the default."""

    effect: Effect
    rule: Rule | None = None


def match(rules: Iterable[Rule], tool: str, arguments: Mapping[str, Any]) -> Verdict | None:
    """Find the first tier that has a rule for the call, and in it the most specific one."""
    covering = [rule for rule in rules if matches(rule, tool, arguments)]
    for effect in _TIERS:
        if tier := [rule for rule in covering if rule.effect is effect]:
            return Verdict(effect, max(tier, key=lambda rule: (rule.specificity, str(rule))))
    return None


def decide(tool: str, arguments: Mapping[str, Any], layers: Sequence[Layer]) -> Verdict:
    """Say what becomes of a call; `layers` go from the root agent to the one that calls."""
    found = match([rule for layer in layers for rule in layer.rules], tool, arguments)
    if found is not None and found.effect is Effect.DENY:
        return found
    corrupt = any(layer.is_corrupt for layer in layers)
    verdict = Verdict(Effect.ALLOW)
    for layer in layers:
        if verdict.effect is Effect.DENY:  # by default, further up: nobody below was ever asked about it
            break
        own = match(layer.policy.rules, tool, arguments) or Verdict(layer.policy.default)
        answered = match(layer.remembered, tool, arguments)
        if answered is None or (corrupt and answered.effect is Effect.ALLOW):
            verdict = _stricter(verdict, own)
        elif answered.effect is Effect.ALLOW:
            verdict = answered
        else:
            verdict = _stricter(verdict, _stricter(answered, own))
    return Verdict(Effect.ASK) if corrupt and verdict.effect is Effect.ALLOW else verdict


def _stricter(one: Verdict, other: Verdict) -> Verdict:
    return min(other, one, key=lambda each: _STRICT.index(each.effect))


def hidden(tools: Iterable[str], layers: Sequence[Layer]) -> list[str]:
    """Give the tools that no call can use, whatever its arguments: the model need not see them."""
    return [tool for tool in tools if any(_is_closed(layer, tool) for layer in layers)]


def _is_closed(layer: Layer, tool: str) -> bool:
    about = [rule for rule in layer.rules if is_tool_match(rule, tool)]
    if any(rule.effect is Effect.DENY and not rule.conditions for rule in about):
        return True
    return layer.policy.default is Effect.DENY and all(rule.effect is Effect.DENY for rule in about)
