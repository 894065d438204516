"""The permission gate: questions, answers, what is remembered, and what a sub-agent inherits."""

from typing import Any

import msgspec
import pytest

from techrevati.agent.actions import Block, ExcludeTool, Phase, Suspend
from techrevati.agent.behaviours.permissions import (
    AddRule,
    ClearTools,
    Effect,
    PermissionPolicy,
    Permissions,
    RemoveTool,
    RevokeRule,
    SessionPermissions,
    SetDefault,
    SetTool,
    deny,
)
from techrevati.agent.behaviours.permissions.confirm import PENDING_NAME, Remember, remembered
from techrevati.agent.behaviours.permissions.state import CallGrant
from techrevati.agent.context import RunIdentity
from techrevati.agent.loop.records import RunPlan, set_loop, set_plan
from techrevati.agent.state.document import apply, apply_all
from techrevati.agent.state.reduction import reduce_actions
from techrevati.agent.state.spec import AnyStateAction, state_at
from techrevati.agent.state.wiring import StateRegistry
from techrevati.agent.suspension import ResumeAction, ResumeMode, ToolCallResume, parked
from techrevati.agent.threads.thread import Thread
from techrevati.agent.tools import ToolDescriptor
from tests.unit.agent.behaviours.contexts import IDENTITY, actions, ctx, only, reduced

GATE = Phase.BEFORE_TOOL_EXECUTE
RM = {"command": "rm x"}


async def gate(
    permissions: Permissions, document: Any = None, tool: str = "shell", args: Any = None, **fields: Any
) -> Any:
    seen = ctx(GATE, document=document, tool_name=tool, tool_args=RM if args is None else args,
               **{"tool_call_id": "c1", **fields})  # fmt: skip
    return actions(await permissions.before_tool_execute(seen), GATE)


async def asked(permissions: Permissions, document: Any = None, **fields: Any) -> dict[str, Any]:
    """Give the document after the gate has asked: the call is parked, as the loop parks it."""
    (suspend,) = await gate(permissions, document, **fields)
    call = parked(suspend.ticket, "c1", fields.get("tool", "shell"), fields.get("args", RM))
    return {**(document or {}), "__tool_call_scope": {"c1": {"suspended_call": msgspec.to_builtins(call)}}}


def passes(found: tuple[Any, ...]) -> bool:
    return not only(found, Suspend) and not only(found, Block)


def grant(result: Any = True) -> ToolCallResume:
    return ToolCallResume("d1", ResumeAction.RESUME, result)


async def test_12_4_allow_proceeds_and_deny_blocks_with_the_reason() -> None:
    permissions = Permissions(["allow shell", "deny shell(command=rm *)"])
    assert await gate(permissions, args={"command": "ls"}) == ()
    (block,) = await gate(permissions)
    assert isinstance(block, Block)
    assert block.reason == "tool 'shell' is denied by a permission rule: deny shell(command=rm *)"


async def test_12_4_ask_suspends_as_permission_confirm() -> None:
    (suspend,) = await gate(Permissions())
    assert isinstance(suspend, Suspend)
    ticket = suspend.ticket
    assert (ticket.pending.id, ticket.pending.name) == ("fc_c1", PENDING_NAME)
    assert ticket.pending.arguments == {"tool_name": "shell", "tool_args": RM}
    assert ticket.suspension.action == "tool:PermissionConfirm"
    assert ticket.resume_mode is ResumeMode.REPLAY
    assert ticket.expires_at is None
    assert "'shell'" in str(ticket.suspension.message)


async def test_12_4_a_question_may_expire() -> None:
    (suspend,) = await gate(Permissions(timeout=2.5), now_ms=1000)
    assert suspend.ticket.expires_at == 3500
    assert suspend.ticket.default.action is ResumeAction.CANCEL


@pytest.mark.parametrize("call_id", ["", "  ", None])
async def test_12_4_a_call_without_an_id_is_blocked_not_asked_about(call_id: str | None) -> None:
    (block,) = await gate(Permissions(), tool_call_id=call_id)
    assert isinstance(block, Block)


async def test_12_4_a_resumed_call_passes() -> None:
    permissions = Permissions()
    assert passes(await gate(permissions, await asked(permissions), resume_input=grant()))


@pytest.mark.parametrize("answer", [False, "no", " Denied ", {"approved": False, "reason": "too dear"}, {"deny": True}])
async def test_12_4_an_answer_that_says_no_does_not_let_a_call_through_whatever_its_action(answer: Any) -> None:
    permissions = Permissions()
    (block,) = await gate(permissions, await asked(permissions), resume_input=grant(answer))
    assert isinstance(block, Block)
    assert "denied" in block.reason


async def test_12_4_a_call_that_parks_itself_after_it_was_allowed_is_not_asked_about_again() -> None:
    permissions = Permissions()
    document = await asked(permissions)
    document = reduced(document, await gate(permissions, document, resume_input=grant()))
    document["__tool_call_scope"]["c1"]["suspended_call"]["suspension"]["action"] = "tool:shell"
    assert await gate(permissions, document, resume_input=grant()) == ()
    assert only(await gate(permissions, document, args={"command": "ls"}, resume_input=grant()), Suspend)
    assert only(await gate(permissions, document, tool_call_id="c2"), Suspend)
    denied = reduced(document, AnyStateAction.new(PermissionPolicy, AddRule("deny shell")))
    assert only(await gate(permissions, denied, resume_input=grant()), Block)


async def test_12_4_who_lets_a_sub_agent_go_on_has_allowed_the_call() -> None:
    permissions = Permissions()
    document = await asked(permissions)
    document["__tool_call_scope"]["c1"]["suspended_call"]["suspension"]["action"] = "recover_agent_run"
    assert passes(await gate(permissions, document, resume_input=grant()))


async def test_12_4_a_denial_that_came_after_the_question_holds() -> None:
    permissions = Permissions()
    document = reduced(await asked(permissions), AnyStateAction.new(PermissionPolicy, AddRule("deny shell")))
    (block,) = await gate(permissions, document, resume_input=grant())
    assert isinstance(block, Block)


async def test_12_4_an_answer_to_another_question_does_not_pass_this_gate() -> None:
    permissions = Permissions()
    document = await asked(permissions)
    document["__tool_call_scope"]["c1"]["suspended_call"]["suspension"]["action"] = "tool:pay"
    (suspend,) = await gate(permissions, document, resume_input=grant())
    assert isinstance(suspend, Suspend)
    (suspend,) = await gate(permissions, resume_input=ToolCallResume("d", ResumeAction.CANCEL))
    assert isinstance(suspend, Suspend)


async def test_12_4_an_answer_for_once_is_not_remembered() -> None:
    permissions = Permissions()
    document = await asked(permissions)
    for answer in (True, {"approved": True}, {"approved": True, "remember": "once"}, {"remember": ["thread"]}):
        found = await gate(permissions, document, resume_input=grant(answer))
        assert passes(found)
        assert {action.spec for action in found} == {CallGrant}


@pytest.mark.parametrize(("scope", "spec"), [("thread", PermissionPolicy), ("session", SessionPermissions)])
async def test_12_4_an_answer_is_remembered_for_the_call_with_these_arguments(scope: str, spec: Any) -> None:
    permissions = Permissions()
    document = await asked(permissions)
    found = await gate(permissions, document, resume_input=grant({"approved": True, "remember": scope}))
    document = reduced({}, found)
    assert await gate(permissions, document) == ()
    assert only(await gate(permissions, document, args={"command": "rm y"}), Suspend)
    assert only(await gate(permissions, document, args={**RM, "force": True}), Suspend), "no argument more"
    state = state_at(document, spec)
    assert list(state.rules) == [str(remembered(Effect.ALLOW, "shell", RM, {"remember": scope})[1])]  # type: ignore[union-attr, index]


async def test_12_4_an_answer_may_name_a_wider_rule_that_covers_the_call() -> None:
    permissions = Permissions()
    document = await asked(permissions)
    answer = {"approved": True, "remember": "thread", "rule": "shell(command=rm *)"}
    document = reduced({}, await gate(permissions, document, resume_input=grant(answer)))
    assert await gate(permissions, document, args={"command": "rm y"}) == ()
    assert only(await gate(permissions, document, args={"command": "ls"}), Suspend)


@pytest.mark.parametrize("rule", ["mail", "allow mail", "deny shell", "((", "shell(command=ls)"])
def test_12_4_a_rule_that_does_not_fit_the_question_is_narrowed(rule: str) -> None:
    found = remembered(Effect.ALLOW, "shell", RM, {"remember": "thread", "rule": rule})
    assert found == remembered(Effect.ALLOW, "shell", RM, {"remember": "thread"})


def test_12_4_an_answer_for_any_arguments_allows_the_tool() -> None:
    found = remembered(Effect.ALLOW, "shell", RM, {"remember": "session", "any_arguments": True})
    assert found is not None
    assert (found[0], str(found[1])) == (Remember.SESSION, "allow shell")


def cancelled(answer: Any) -> dict[str, Any]:
    call = {"call_id": "c1", "tool_name": "shell", "arguments": RM, "status": "cancelled",
            "resume": {"decision_id": "d1", "action": "cancel", "result": answer}}  # fmt: skip
    return {"__tool_call_scope": {"c1": {"tool_call_state": call}}}


async def test_12_4_a_denial_is_remembered_once_and_can_be_revoked_for_good() -> None:
    permissions = Permissions(["allow shell"])
    document: Any = cancelled({"approved": False, "remember": "thread", "any_arguments": True})

    async def step(document: Any) -> Any:
        return reduced(document, await permissions.step_start(ctx(Phase.STEP_START, document=document)))

    document = await step(document)
    assert only(await gate(permissions, document), Block)
    assert await step(document) == document
    document = reduced(document, AnyStateAction.new(PermissionPolicy, RevokeRule("deny shell")))
    assert await gate(permissions, await step(document)) == ()


@pytest.mark.parametrize("answer", [False, None, "no", {"approved": False}, {"approved": False, "remember": "once"}])
async def test_12_4_a_plain_denial_is_for_this_call_only(answer: Any) -> None:
    seen = ctx(Phase.STEP_START, document=cancelled(answer))
    assert actions(await Permissions().step_start(seen), Phase.STEP_START) == ()


async def test_12_4_rules_of_a_thread_can_be_added_and_revoked() -> None:
    permissions = Permissions()

    def after(document: Any, *found: Any) -> Any:
        return reduced(document, [AnyStateAction.new(PermissionPolicy, each) for each in found])

    document = after({}, AddRule("allow  shell"))
    assert await gate(permissions, document) == ()
    document = after(document, RevokeRule("allow shell"))
    assert only(await gate(permissions, document), Suspend)
    document = after(document, SetTool("shell", Effect.DENY))
    assert only(await gate(permissions, document), Block)
    document = after(document, SetTool("shell", Effect.ALLOW))
    assert await gate(permissions, document) == ()
    document = after(document, RemoveTool("shell"))
    assert only(await gate(permissions, document), Suspend)
    document = after(document, SetDefault(Effect.ALLOW))
    assert await gate(permissions, document) == ()
    document = after(document, AddRule("deny *"), ClearTools(), SetDefault(None))
    assert only(await gate(permissions, document), Suspend)


def test_12_4_rules_that_parallel_calls_add_are_joined() -> None:
    registry = StateRegistry()
    registry.register(PermissionPolicy)

    def add(rule: str, actor: str) -> Any:
        action = AnyStateAction.new(PermissionPolicy, AddRule(rule))
        return reduce_actions({}, [action], actor=actor, registry=registry.lattices).patch

    joined = apply_all({}, [add("allow a", "c1"), add("deny b", "c2")], registry.lattices)
    found = state_at(joined, PermissionPolicy)
    assert found is not None
    assert list(found.rules) == ["allow a", "deny b"]


async def test_12_4_tools_that_are_always_denied_are_hidden_from_the_model() -> None:
    permissions = Permissions(["deny mcp__*", "deny shell(command=rm *)"])
    tools = tuple(ToolDescriptor(name) for name in ("mcp__a", "shell", "mail"))
    document = reduced({}, AnyStateAction.new(PermissionPolicy, AddRule("deny mail")))
    seen = ctx(Phase.BEFORE_INFERENCE, tools=tools, document=document)
    found = actions(await permissions.before_inference(seen), Phase.BEFORE_INFERENCE)
    assert found == (ExcludeTool("mcp__a"), ExcludeTool("mail"))


@pytest.mark.parametrize(
    "stored",
    [
        "nonsense",
        {"rules": 7},
        {"rules": {"entries": {"permit all": {"a": 1}}, "tombstones": {}}},
        {"rules": {"entries": {}, "tombstones": {}}, "default": "whatever"},
    ],
)
async def test_12_4_unreadable_state_asks(stored: Any) -> None:
    permissions = Permissions(["allow *", "deny mail"])
    for place in ("permission_policy", "__permissions_session"):
        assert only(await gate(permissions, {place: stored}), Suspend)
        assert only(await gate(permissions, {place: stored}, tool="mail"), Block)
    assert only(await gate(permissions, {"__permissions_in_force": "nonsense"}), Suspend)


class Threads:
    """Threads by id, as a store gives them."""

    def __init__(self, **documents: Any) -> None:
        self.documents = documents

    async def load_thread(self, thread_id: str) -> Thread | None:
        found = self.documents.get(thread_id)
        return None if found is None else Thread(id=thread_id, state=found)


CHILD = RunIdentity("child", "r2", "helper", parent_thread_id="parent", parent_run_id="r1")


async def started(permissions: Permissions, identity: RunIdentity | None = None, document: Any = None) -> Any:
    above = (None,) if identity else ()
    seen = ctx(Phase.RUN_START, document=document, identity=identity or IDENTITY, above=above)
    return reduced(document, await permissions.run_start(seen))


async def test_12_4_a_sub_agent_inherits_what_its_parent_declares_and_remembers() -> None:
    parent = await started(Permissions(["deny shell(command=rm *)", "allow read", "ask mail"], default="allow"))
    parent = reduced(parent, AnyStateAction.new(PermissionPolicy, AddRule("deny post")))
    child = Permissions(["allow *"], parents=Threads(parent=parent))
    document = await started(child, CHILD)
    assert only(await gate(child, document), Block)
    assert only(await gate(child, document, tool="post"), Block)
    assert only(await gate(child, document, tool="mail"), Suspend)
    assert await gate(child, document, tool="read") == ()
    grandchild = Permissions(["allow *"], parents=Threads(parent=document))
    assert only(await gate(grandchild, await started(grandchild, CHILD)), Block), "over two generations"


async def test_12_4_a_sub_agent_that_cannot_look_at_its_parent_asks_until_a_person_allowed_it() -> None:
    child = Permissions(["allow *", deny("post")])
    document = await started(child, CHILD)
    assert only(await gate(child, document), Suspend)
    assert only(await gate(child, document, tool="post"), Block)
    document = reduced(document, AnyStateAction.new(SessionPermissions, AddRule("allow shell")))
    assert await gate(child, document) == ()


async def test_12_4_a_sub_agent_whose_parent_is_gone_asks_every_time() -> None:
    child = Permissions(["allow *"], parents=Threads())
    document = reduced(await started(child, CHILD), AnyStateAction.new(SessionPermissions, AddRule("allow shell")))
    assert only(await gate(child, document), Suspend)


def kept(run_id: str, *, started: bool, above: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Give what the loop keeps of a run in its thread."""
    plan = RunPlan(RunIdentity("parent", run_id, "boss"), above=above)
    return apply(apply({}, set_plan(plan)), set_loop({}, started=started))


@pytest.mark.parametrize(
    "parent",
    [
        {},
        kept("r1", started=False),
        kept("another", started=True),
        kept("r1", started=True, above=(None,)),
    ],
    ids=["nothing", "not begun", "another run", "an agent above it not known"],
)
async def test_12_4_a_parent_s_thread_that_does_not_say_what_holds_makes_a_sub_agent_ask(parent: Any) -> None:
    child = Permissions(["allow *"], parents=Threads(parent=parent))
    assert only(await gate(child, await started(child, CHILD)), Suspend)


async def test_12_4_a_note_of_another_run_of_the_parent_holds_and_does_not_let_through() -> None:
    note = await started(Permissions(["deny post", "allow *"]))
    child = Permissions(["allow *"], parents=Threads(parent=kept("r0", started=True) | note))
    document = await started(child, CHILD)
    assert only(await gate(child, document, tool="post"), Block)
    assert only(await gate(child, document), Suspend)


async def test_12_4_a_parent_that_has_begun_without_permissions_restricts_nothing() -> None:
    child = Permissions(["allow *"], parents=Threads(parent=kept("r1", started=True)))
    assert await gate(child, await started(child, CHILD)) == ()


async def test_12_4_what_came_along_with_the_start_holds_and_no_thread_is_read() -> None:
    grandparent = await started(Permissions(["deny shell", "allow *"]))
    for above, kind in [((grandparent,), Block), ((grandparent, {}), Block), ((None, {}), Suspend)]:
        child = Permissions(["allow *"])
        seen = ctx(Phase.RUN_START, identity=CHILD, above=above)
        assert only(await gate(child, reduced(None, await child.run_start(seen))), kind), above
    seen = ctx(Phase.RUN_START, identity=CHILD, above=({},))
    assert await gate(child, reduced(None, await child.run_start(seen))) == (), "a parent without permissions"


async def test_12_4_what_came_along_unreadable_makes_a_sub_agent_ask() -> None:
    child = Permissions(["allow *"])
    seen = ctx(Phase.RUN_START, identity=CHILD, above=({"__permissions_in_force": "nonsense"},))
    assert only(await gate(child, reduced(None, await child.run_start(seen))), Suspend)
