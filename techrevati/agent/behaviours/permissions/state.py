"""Permission rules that a thread remembers: they come, and they can be revoked.

    permission_policy       thread   what people answered "for this conversation", and what the app set
    __permissions_session   run      what people answered "for this session"
    __permissions_in_force  run      what the agent declares and inherited, for its sub-agents

All three go along when a sub-agent is sent out.  Rules stand in an observed-remove set, so that parallel writers join
and a revoked rule is gone.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from techrevati.agent.behaviours.permissions.policy import Layer, Policy
from techrevati.agent.behaviours.permissions.rules import BadRule, Effect, Rule, parse_rule
from techrevati.agent.loop.records import loop_state, run_plan
from techrevati.agent.state.document import Document
from techrevati.agent.state.errors import StateUnreadable
from techrevati.agent.state.notation import Path
from techrevati.agent.state.observed import ORSet
from techrevati.agent.state.paths import PERMISSION_POLICY
from techrevati.agent.state.registers import GSet
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.spec import StateSpec, state_at

UNKNOWN = Layer(Policy())
"""What stands for rules that are not known: a person is asked about every call."""


class AddRule(msgspec.Struct, frozen=True, tag="add_rule"):
    rule: str


class RevokeRule(msgspec.Struct, frozen=True, tag="revoke_rule"):
    """Take a rule out by its text."""

    rule: str


class SetTool(msgspec.Struct, frozen=True, tag="set_tool"):
    """Say what holds for every call of one tool, in place of what was said before."""

    tool: str
    effect: Effect


class RemoveTool(msgspec.Struct, frozen=True, tag="remove_tool"):
    """Take back what was said for every call of one tool."""

    tool: str


class ClearTools(msgspec.Struct, frozen=True, tag="clear_tools"):
    """Take back every rule."""


class SetDefault(msgspec.Struct, frozen=True, tag="set_default"):
    """Say what holds where no rule does; None is what the agent declares."""

    effect: Effect | None


class NoteAnswer(msgspec.Struct, frozen=True, tag="note_answer"):
    """Know that the rule a decision asked for was taken in, so that revoking it lasts."""

    decision_id: str


PermissionAction = AddRule | RevokeRule | SetTool | RemoveTool | ClearTools | SetDefault | NoteAnswer


class _Rules(StateSpec):
    rules: ORSet[str] = msgspec.field(default_factory=ORSet)
    answers: GSet[str] = msgspec.field(default_factory=GSet)
    default: str | None = None

    ACTION = PermissionAction

    def reduce(self, action: PermissionAction) -> None:
        match action:
            case AddRule(rule):
                self.rules.insert(str(parse_rule(rule)))
            case RevokeRule(rule):
                self.rules.remove(str(parse_rule(rule)))
            case SetTool(tool, effect):
                self._forget(tool)
                self.rules.insert(str(parse_rule(f"{effect} {tool}")))
            case RemoveTool(tool):
                self._forget(tool)
            case ClearTools():
                for rule in list(self.rules):
                    self.rules.remove(rule)
            case SetDefault(chosen):
                self.default = None if chosen is None else chosen.value
            case NoteAnswer(decision_id):
                self.answers.insert(decision_id)

    def _forget(self, tool: str) -> None:
        for effect in Effect:
            self.rules.remove(str(Rule(effect, tool)))


class PermissionPolicy(_Rules):
    PATH: ClassVar[Path] = PERMISSION_POLICY
    NAME = "PermissionPolicy"
    BINDS_CHILDREN = True


class SessionPermissions(_Rules):
    PATH: ClassVar[Path] = ("__permissions_session",)
    SCOPE = StateScope.RUN
    NAME = "SessionPermissions"
    BINDS_CHILDREN = True


class GrantCall(msgspec.Struct, frozen=True):
    """A person let this call through, with these arguments."""

    arguments: Any


class CallGrant(StateSpec):
    """That a call was let through: it may park itself and come back without being asked about again."""

    PATH: ClassVar[Path] = ("permission_grant",)
    SCOPE = StateScope.TOOL_CALL
    NAME = "CallGrant"
    ACTION = GrantCall

    granted: bool = False
    arguments: Any = None

    def reduce(self, action: GrantCall) -> None:
        self.granted, self.arguments = True, action.arguments


class LayerRecord(msgspec.Struct, frozen=True):
    """A layer as JSON."""

    rules: tuple[str, ...] = ()
    default: str = Effect.ASK.value
    remembered: tuple[str, ...] = ()
    is_corrupt: bool = False


class InForce(msgspec.Struct, frozen=True):
    """What an agent declares, below what it inherited."""

    own: LayerRecord
    inherited: tuple[LayerRecord, ...] = ()


class PermissionsInForce(StateSpec):
    PATH: ClassVar[Path] = ("__permissions_in_force",)
    SCOPE = StateScope.RUN
    NAME = "PermissionsInForce"
    BINDS_CHILDREN = True
    ACTION = InForce

    own: LayerRecord = LayerRecord()
    inherited: tuple[LayerRecord, ...] = ()

    def reduce(self, action: InForce) -> None:
        self.own, self.inherited = action.own, action.inherited


def to_record(layer: Layer) -> LayerRecord:
    return LayerRecord(
        tuple(map(str, layer.policy.rules)), layer.policy.default, tuple(map(str, layer.remembered)), layer.is_corrupt
    )


def to_layer(record: LayerRecord) -> Layer:
    rules, bad_rules = _parsed(record.rules)
    remembered, bad_answers = _parsed(record.remembered)
    default, bad_default = _effect(record.default)
    corrupt = record.is_corrupt or bad_rules or bad_answers or bad_default
    return Layer(Policy(rules, default), remembered, corrupt)


def own_layer(policy: Policy, document: Document) -> Layer:
    """Join what an agent declares with what its thread and session remember."""
    remembered: list[Rule] = []
    default, corrupt = policy.default, False
    for spec in (PermissionPolicy, SessionPermissions):
        try:
            found: Any = state_at(document, spec)
        except StateUnreadable:
            corrupt = True
            continue
        if found is None:
            continue
        rules, bad = _parsed(found.rules)
        remembered += rules
        if found.default is not None:
            default, wrong = _effect(found.default)
            bad = bad or wrong
        corrupt = corrupt or bad
    return Layer(Policy(policy.rules, default), tuple(remembered), corrupt)


def inherited_layers(parent: Document) -> list[Layer] | None:
    """Give what holds below a parent, from the root agent down to it; None where it has noted nothing."""
    try:
        force = state_at(parent, PermissionsInForce)
    except StateUnreadable:
        return [Layer(Policy(), is_corrupt=True)]
    if force is None:
        return None
    own = to_layer(force.own)
    live = own_layer(own.policy, parent)
    corrupt = own.is_corrupt or live.is_corrupt
    return [*map(to_layer, force.inherited), Layer(live.policy, live.remembered, corrupt)]


def layers_above(above: Sequence[Document | None]) -> list[Layer] | None:
    """Give what the agents above a run add up to, from the root agent down; None if that is not known.

    The nearest one with permissions has said what holds above it, too.  Who has none restricts nothing, and lifts
    nothing of what holds above.
    """
    for document in reversed(above):
        if document is None:
            return None
        layers = inherited_layers(document)
        if layers is not None:
            return layers
    return []


def layers_read(parent: Document, run_id: str | None) -> list[Layer]:
    """Give what holds by a parent's thread for a child of its run `run_id`; what cannot be told is asked about.

    A thread is of the moment it was stored: the run may not have begun in it yet, or be over.
    """
    plan = run_plan(parent)
    is_other = plan is not None and run_id is not None and plan.identity.run_id != run_id
    layers = inherited_layers(parent)
    if layers is None:
        if plan is None or plan.identity.run_id != run_id or not loop_state(parent).started:
            return [UNKNOWN]
        above = layers_above(plan.above)  # the run has begun without permissions
        return [UNKNOWN] if above is None else above
    return [*layers, UNKNOWN] if is_other else layers


def _parsed(texts: Any) -> tuple[tuple[Rule, ...], bool]:
    rules, corrupt = [], False
    for text in texts:
        try:
            rules.append(parse_rule(text))
        except BadRule:
            corrupt = True
    return tuple(rules), corrupt


def _effect(text: str) -> tuple[Effect, bool]:
    try:
        return Effect(text), False
    except ValueError:
        return Effect.ASK, True
