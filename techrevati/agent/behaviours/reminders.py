"""Reminders: lines that a tool, a behaviour or a rule wants the model to read before its next answer.

add ─▶ reminders.items ─▶ session context "Reminder: …" ─▶ forgotten once an answer came
tool result ─ rule matches ─▶ reminders.fired ─▶ context message with a cooldown
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import msgspec

from techrevati.agent.actions import (
    ActionSet,
    AddContextMessage,
    AddSessionContext,
    AfterInferenceAction,
    AfterToolExecuteAction,
    BeforeInferenceAction,
    ContextMessage,
    Effect,
    Target,
)
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.errors import AgentError
from techrevati.agent.state.notation import Path
from techrevati.agent.state.paths import REMINDERS
from techrevati.agent.state.spec import AnyStateAction, StateSpec
from techrevati.agent.tools import ToolStatus

PREFIX = "Reminder:"


class AddReminder(msgspec.Struct, frozen=True, tag="add"):
    """Remind of something; the same text twice is one reminder."""

    text: str


class RemoveReminder(msgspec.Struct, frozen=True, tag="remove"):
    text: str


class ClearReminders(msgspec.Struct, frozen=True, tag="clear"):
    pass


class RuleFired(msgspec.Struct, frozen=True, tag="fired"):
    rule: str


class RemindersShown(msgspec.Struct, frozen=True, tag="shown"):
    """Note what the request under way shows."""

    items: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


class RemindersRead(msgspec.Struct, frozen=True, tag="read"):
    """Forget what was shown: the model has answered."""

    keep_items: bool = False


ReminderAction = AddReminder | RemoveReminder | ClearReminders | RuleFired | RemindersShown | RemindersRead


class Reminders(StateSpec):
    PATH: ClassVar[Path] = REMINDERS
    NAME = "Reminders"
    ACTION = ReminderAction

    items: tuple[str, ...] = ()
    fired: tuple[str, ...] = ()
    shown_items: tuple[str, ...] = ()
    shown_rules: tuple[str, ...] = ()

    def reduce(self, action: ReminderAction) -> None:
        match action:
            case AddReminder(text):
                if text.strip() and text not in self.items:
                    self.items = (*self.items, text)
            case RemoveReminder(text):
                self.items = tuple(item for item in self.items if item != text)
            case ClearReminders():
                self.items = self.fired = self.shown_items = self.shown_rules = ()
            case RuleFired(rule):
                if rule not in self.fired:
                    self.fired = (*self.fired, rule)
            case RemindersShown(items, rules):
                self.shown_items, self.shown_rules = items, rules
            case RemindersRead(keep_items):
                if not keep_items:
                    self.items = tuple(item for item in self.items if item not in self.shown_items)
                self.fired = tuple(rule for rule in self.fired if rule not in self.shown_rules)
                self.shown_items = self.shown_rules = ()


class BadReminderRule(AgentError):
    """A reminder rule that could never work."""

    def __init__(self, rule: str, cause: str) -> None:
        super().__init__(rule, cause)
        self.rule, self.cause = rule, cause

    def __str__(self) -> str:
        return f"reminder rule {self.rule!r} is refused: {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReminderRule:
    """Say something when a tool's result looks a certain way.

    Attributes:
        id: Identity, for the cooldown.
        tool: Glob of tool ids.
        output: Regular expression searched for in the JSON of the result; None matches any.
        status: Only results of this status.
        cooldown_turns: Inferences to stay silent after having spoken.
    """

    id: str
    text: str
    tool: str = "*"
    output: str | None = None
    status: ToolStatus | None = None
    cooldown_turns: int = 0

    def __post_init__(self) -> None:
        if not self.id.strip() or not self.text.strip():
            raise BadReminderRule(self.id, "it has no id or no text; fix: give it both")
        try:
            re.compile(self.output or "")
        except re.error as error:
            raise BadReminderRule(self.id, f"{self.output!r} is not a regular expression: {error}") from error

    def matches(self, ctx: ReadOnlyContext) -> bool:
        """Tell whether it speaks to the result of this call."""
        result = ctx.tool_result
        if result is None or not fnmatchcase(ctx.tool_name or "", self.tool):
            return False
        if self.status is not None and result.status is not self.status:
            return False
        return self.output is None or re.search(self.output, _text(result.to_json())) is not None


def _text(record: Any) -> str:
    return msgspec.json.encode(record).decode()


class ReminderContext(AgentBehavior):
    """Shows reminders before the next answer.

    Args:
        persist: Keep showing what was added until it is removed.
    """

    id = "reminders"
    states = (Reminders,)

    def __init__(self, rules: Sequence[ReminderRule] = (), *, persist: bool = False) -> None:
        self._rules = {rule.id: rule for rule in rules}
        if len(self._rules) < len(rules):
            raise BadReminderRule(", ".join(rule.id for rule in rules), "an id is used twice; fix: rename one")
        self._persist = persist

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        state = ctx.scoped_state_of(Reminders)
        fired = [self._rules[name] for name in state.fired if name in self._rules]
        if not state.items and not state.fired:
            return None
        shown: list[BeforeInferenceAction] = [AddSessionContext(f"{PREFIX} {text}") for text in state.items]
        shown += [
            AddContextMessage(
                ContextMessage(
                    f"reminder:{rule.id}", f"{PREFIX} {rule.text}", rule.cooldown_turns, Target.SUFFIX_SYSTEM
                )
            )
            for rule in fired
        ]
        noted = RemindersShown(state.items, state.fired)
        return ActionSet.of([*shown, AnyStateAction.new(Reminders, noted)])

    async def after_inference(self, ctx: ReadOnlyContext) -> Effect[AfterInferenceAction]:
        """Forget what was read; what a failed call should have shown is shown again."""
        state = ctx.scoped_state_of(Reminders)
        if ctx.response is None or not (state.shown_items or state.shown_rules):
            return None
        return AnyStateAction.new(Reminders, RemindersRead(self._persist))

    async def after_tool_execute(self, ctx: ReadOnlyContext) -> Effect[AfterToolExecuteAction]:
        return ActionSet.of(
            AnyStateAction.new(Reminders, RuleFired(rule.id)) for rule in self._rules.values() if rule.matches(ctx)
        )
