"""The permission gate: rules before every call, questions to people, answers remembered.

call ──decide(layers)──▶ deny: block │ allow: proceed │ ask: suspend as PermissionConfirm
                                                          │
resumed with an answer ──▶ proceed (no denial came since), and remember what the answer says
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from techrevati.agent.actions import (
    ActionSet,
    BeforeInferenceAction,
    BeforeToolExecuteAction,
    Block,
    ExcludeTool,
    LifecycleAction,
    Suspend,
)
from techrevati.agent.actions import (
    Effect as HookEffect,
)
from techrevati.agent.answers import action_of, reason_of
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.behaviours.permissions import confirm
from techrevati.agent.behaviours.permissions.confirm import Remember
from techrevati.agent.behaviours.permissions.policy import Layer, Policy, Verdict, decide, hidden
from techrevati.agent.behaviours.permissions.rules import Effect, Rule, parse_rule
from techrevati.agent.behaviours.permissions.state import (
    UNKNOWN,
    AddRule,
    CallGrant,
    GrantCall,
    InForce,
    NoteAnswer,
    PermissionPolicy,
    PermissionsInForce,
    SessionPermissions,
    layers_above,
    layers_read,
    own_layer,
    to_layer,
    to_record,
)
from techrevati.agent.context import ReadOnlyContext, RunIdentity
from techrevati.agent.state.document import find
from techrevati.agent.state.errors import StateUnreadable
from techrevati.agent.state.paths import SUSPENDED_CALL, TOOL_CALL_SCOPE, TOOL_CALL_STATE, call_path
from techrevati.agent.state.spec import AnyStateAction, state_at
from techrevati.agent.state.wiring import StateRegistry
from techrevati.agent.suspension import ResumeAction
from techrevati.agent.threads.thread import Thread

RECOVERY = "recover_agent_run"
"""The question whether a sub-agent whose worker died goes on: who says yes has allowed the call."""


class ParentThreads(Protocol):
    """Where the gate reads what holds in the parent's thread; any thread store is one."""

    async def load_thread(self, thread_id: str) -> Thread | None: ...


class Permissions(AgentBehavior):
    """Lets calls through, blocks them, or asks a person.

    Args:
        rules: What the agent declares, as texts or `Rule`s.
        default: What holds for a call that no rule covers.
        timeout: Seconds a person has to answer; then the call is denied.  None waits for ever.
        parents: Where threads are read, for hosts that start agents by other means than the loop's.  A sub-agent that
            the loop starts is told what holds for its parent; of any other the parent's thread is read, and where that
            does not say it either, it asks for everything that no person has allowed it.

    Raises:
        BadRule: a rule that is none.
    """

    id = "permissions"
    states = (PermissionPolicy, SessionPermissions, PermissionsInForce, CallGrant)

    def __init__(
        self,
        rules: Sequence[str | Rule] = (),
        *,
        default: Effect | str = Effect.ASK,
        timeout: float | None = None,
        parents: ParentThreads | None = None,
    ) -> None:
        parsed = tuple(rule if isinstance(rule, Rule) else parse_rule(rule) for rule in rules)
        self.policy = Policy(parsed, Effect(default))
        self._timeout, self._parents = timeout, parents
        self._registry = StateRegistry()
        for spec in self.states:
            self._registry.register(spec)

    async def run_start(self, ctx: ReadOnlyContext) -> HookEffect[LifecycleAction]:
        """Note what is in force, for this run's gate and for its sub-agents."""
        inherited = layers_above(ctx.above)
        if inherited is None:
            inherited = await self._read(ctx.identity)
        own = to_record(Layer(self.policy))
        return AnyStateAction.new(PermissionsInForce, InForce(own, tuple(map(to_record, inherited))))

    async def _read(self, identity: RunIdentity) -> list[Layer]:
        if identity.parent_thread_id is None or self._parents is None:
            return [UNKNOWN]
        thread = await self._parents.load_thread(identity.parent_thread_id)
        if thread is None:
            return [Layer(Policy(), is_corrupt=True)]
        return layers_read(thread.rebuild_state(self._registry.lattices), identity.parent_run_id)

    def layers(self, document: Mapping[str, Any]) -> list[Layer]:
        """Give what holds now, from the root agent down to this one."""
        own = own_layer(self.policy, dict(document))
        try:
            force = state_at(dict(document), PermissionsInForce)
        except StateUnreadable:
            return [Layer(own.policy, own.remembered, is_corrupt=True)]
        return [*(map(to_layer, force.inherited) if force is not None else ()), own]

    def verdict(self, document: Mapping[str, Any], tool: str, arguments: Any) -> Verdict:
        """Say what would become of a call."""
        return decide(tool, arguments if isinstance(arguments, Mapping) else {}, self.layers(document))

    async def step_start(self, ctx: ReadOnlyContext) -> HookEffect[LifecycleAction]:
        """Take in the denials that are to last: a cancelled call has no hook of its own."""
        calls = find(ctx.document, TOOL_CALL_SCOPE)
        actions: list[AnyStateAction] = []
        for call in sorted(calls) if isinstance(calls, dict) else ():
            state = find(ctx.document, call_path(call, TOOL_CALL_STATE))
            if not isinstance(state, dict) or state.get("status") != "cancelled":
                continue
            resume = state.get("resume") or {}
            wanted = confirm.remembered(
                Effect.DENY, str(state["tool_name"]), _arguments(state.get("arguments")), resume.get("result")
            )
            if wanted is not None and not _is_noted(ctx, wanted[0], str(resume.get("decision_id"))):
                actions += _remember(wanted, str(resume.get("decision_id")))
        return ActionSet.of(actions)

    async def before_inference(self, ctx: ReadOnlyContext) -> HookEffect[BeforeInferenceAction]:
        """Hide the tools that every call would be denied."""
        offered = [tool.id for tool in ctx.tools]
        return ActionSet.of(ExcludeTool(tool) for tool in hidden(offered, self.layers(ctx.document)))

    async def before_tool_execute(self, ctx: ReadOnlyContext) -> HookEffect[BeforeToolExecuteAction]:
        """Judge one call."""
        tool, call_id = ctx.tool_name or "", ctx.tool_call_id or ""
        verdict = self.verdict(ctx.document, tool, ctx.tool_args)
        if verdict.effect is Effect.DENY:
            return Block(f"tool {tool!r} is denied by a permission rule: {verdict.rule or 'default deny'}")
        if _is_answered(ctx, call_id):
            assert ctx.resume_input is not None
            answer = ctx.resume_input.result
            if _is_denial(answer):
                return Block(f"tool {tool!r} was denied by whoever was asked: {reason_of(answer) or answer!r}")
            wanted = confirm.remembered(Effect.ALLOW, tool, _arguments(ctx.tool_args), answer)
            grant = AnyStateAction.new_for_call(CallGrant, GrantCall(ctx.tool_args), call_id)
            return ActionSet.of([grant, *(_remember(wanted, ctx.resume_input.decision_id) if wanted else ())])
        if verdict.effect is Effect.ALLOW or _was_granted(ctx, call_id):
            return None
        if not call_id.strip():
            return Block(f"tool {tool!r} needs a permission, and a call without an id cannot be asked about")
        expires = None if self._timeout is None else ctx.now_ms + round(self._timeout * 1000)
        return Suspend(confirm.ticket(call_id, tool, ctx.tool_args, rule=verdict.rule, expires_at=expires))


def _is_answered(ctx: ReadOnlyContext, call_id: str) -> bool:
    """Tell whether this is the replay of a call that a person was asked about, and let through."""
    if ctx.resume_input is None or ctx.resume_input.action is not ResumeAction.RESUME or not call_id:
        return False
    action = find(ctx.document, (*call_path(call_id, SUSPENDED_CALL), "suspension", "action"))
    return action in (confirm.ACTION, RECOVERY)


def _is_denial(answer: Any) -> bool:
    """Tell whether an answer says no, whatever action it came with; no answer at all says nothing."""
    return isinstance(answer, bool | str | Mapping) and action_of(answer) is ResumeAction.CANCEL


def _was_granted(ctx: ReadOnlyContext, call_id: str) -> bool:
    if not call_id:
        return False
    try:
        grant = ctx.scoped_state_of(CallGrant, call_id)
    except StateUnreadable:
        return False
    return grant.granted and bool(grant.arguments == ctx.tool_args)


def _arguments(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _is_noted(ctx: ReadOnlyContext, scope: Remember, decision_id: str) -> bool:
    try:
        found = state_at(ctx.document, _SPECS[scope])
    except StateUnreadable:
        return True  # nothing can be added to it
    return found is not None and decision_id in found.answers


def _remember(wanted: tuple[Remember, Rule], decision_id: str) -> list[AnyStateAction]:
    spec = _SPECS[wanted[0]]
    return [
        AnyStateAction.new(spec, AddRule(str(wanted[1]))),
        AnyStateAction.new(spec, NoteAnswer(decision_id)),
    ]


_SPECS: Mapping[Remember, type[PermissionPolicy | SessionPermissions]] = {
    Remember.SESSION: SessionPermissions,
    Remember.THREAD: PermissionPolicy,
}
