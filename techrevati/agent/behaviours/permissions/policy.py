"""What the permission rules that hold for a call add up to.

    parent's policy ─┐
    agent's policy  ─┼─▶ any denial ─▶ a remembered answer ─▶ the stricter of parent and agent ─▶ Verdict
    remembered      ─┘

Inside one policy: deny beats allow, allow beats ask, and what no rule covers has the default (ask).
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


def decide(
    tool: str,
    arguments: Mapping[str, Any],
    *,
    own: Policy,
    inherited: Policy | None = None,
    remembered: Sequence[Rule] = (),
    is_corrupt: bool = False,
) -> Verdict:
    """Say what becomes of a call.

    Args:
        own: What the agent declares.
        inherited: What held for its parent: its denials hold here too, its questions are asked here.
        remembered: Rules that people gave in answer, for this thread or session.
        is_corrupt: Something that was remembered cannot be read; as it may have been a denial, nothing is allowed.
    """
    layers = [policy for policy in (inherited, own) if policy is not None]
    everything = [rule for policy in layers for rule in policy.rules] + list(remembered)
    verdict = match(everything, tool, arguments)
    if verdict is not None and verdict.effect is Effect.DENY:
        return verdict
    if is_corrupt:
        return Verdict(Effect.ASK)
    answered = match(remembered, tool, arguments)
    if answered is not None and answered.effect is Effect.ALLOW:
        return answered
    found = [match(policy.rules, tool, arguments) or Verdict(policy.default) for policy in layers]
    if answered is not None:
        found.append(answered)
    return min(found, key=lambda each: _STRICT.index(each.effect))


def hidden(tools: Iterable[str], rules: Sequence[Rule]) -> list[str]:
    """Give the tools that no call can use, whatever its arguments: the model need not see them."""
    total = [rule for rule in rules if rule.effect is Effect.DENY and not rule.conditions]
    return [tool for tool in tools if any(is_tool_match(rule, tool) for rule in total)]
