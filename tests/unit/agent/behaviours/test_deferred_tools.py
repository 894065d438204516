"""Tools that are offered by name until they are searched for."""

from typing import Any

import pytest

from techrevati.agent.actions import AddSystemContext, ExcludeTool, Phase
from techrevati.agent.behaviours.deferred_tools import (
    SEARCH_TOOL,
    DeferralPolicy,
    DeferredTools,
    Loading,
    LoadingRule,
    PromotedTools,
    savings,
)
from techrevati.agent.behaviours.permissions import Permissions
from techrevati.agent.behaviours.tokens import tool_tokens
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import apply_all
from techrevati.agent.state.reduction import reduce_actions
from techrevati.agent.state.spec import state_at
from techrevati.agent.state.wiring import StateRegistry
from techrevati.agent.tools import ToolResult
from techrevati.agent.typed_tool import FunctionTool
from tests.unit.agent.behaviours.contexts import actions, call_ctx, ctx, only, reduced


def make(name: str, description: str = "") -> FunctionTool:
    async def body(text: str = "") -> str:
        return text

    return FunctionTool(body, id=name, description=description)


TOOLS = [make("mail_send", "Send mail"), make("mail_read", "Read mail"), make("notes", "Keep notes")]
ON = DeferralPolicy(rules=(LoadingRule("notes", Loading.EAGER),), enabled=True)


def offered(behaviour: DeferredTools) -> tuple[Any, ...]:
    return tuple(each.descriptor for each in (*TOOLS, *behaviour.tools))


async def seen(behaviour: DeferredTools, document: Any = None, step: int = 0) -> tuple[list[str], str]:
    """Give the tools of the request, and the system context."""
    tools = offered(behaviour)
    context = ctx(Phase.BEFORE_INFERENCE, document=document, tools=tools, step=step)
    found = actions(await behaviour.before_inference(context), Phase.BEFORE_INFERENCE)
    gone = {action.tool_id for action in only(found, ExcludeTool)}
    text = "".join(action.text for action in only(found, AddSystemContext))
    return [each.id for each in tools if each.id not in gone], text


async def find(behaviour: DeferredTools, document: Any, query: str, **fields: Any) -> tuple[Any, ToolResult]:
    effect = await behaviour.tools[0].run({"query": query}, call_ctx(SEARCH_TOOL, document=document, **fields))
    return reduced(document, list(effect.actions)), effect.result


async def test_12_5_deferred_tools_are_named_and_their_schemas_are_not_sent() -> None:
    tools, text = await seen(DeferredTools(TOOLS, ON))
    assert tools == ["notes", SEARCH_TOOL]
    assert text.endswith("mail_send, mail_read")


async def test_12_5_what_is_found_is_promoted_for_the_run() -> None:
    behaviour = DeferredTools(TOOLS, ON)
    document, result = await find(behaviour, {}, "select:mail_send")
    assert result.data == {"tools": [{"name": "mail_send", "description": "Send mail"}], "searched": 2}
    tools, text = await seen(behaviour, document)
    assert tools == ["mail_send", "notes", SEARCH_TOOL]
    assert text.endswith(": mail_read")
    document, _ = await find(behaviour, document, "+mail")
    assert await seen(behaviour, document) == (["mail_send", "mail_read", "notes", SEARCH_TOOL], "")


async def test_12_5_nothing_found_promotes_nothing() -> None:
    document, result = await find(DeferredTools(TOOLS, ON), {}, "zebra")
    assert (document, result.data["tools"], result.message) == ({}, [], "nothing was found")


async def test_12_5_two_searches_of_one_round_join() -> None:
    behaviour, registry = DeferredTools(TOOLS, ON), StateRegistry()
    registry.register(PromotedTools)
    patches = []
    for name in ("mail_send", "mail_read"):
        effect = await behaviour.tools[0].run({"query": f"select:{name}"}, call_ctx(SEARCH_TOOL))
        patches.append(reduce_actions({}, effect.actions, actor=name, registry=registry.lattices).patch)  # type: ignore[arg-type]  # state actions only
    state = state_at(apply_all({}, patches, registry.lattices), PromotedTools)
    assert state is not None
    assert sorted(state.tools) == ["mail_read", "mail_send"]


def test_12_5_the_first_rule_that_matches_decides() -> None:
    policy = DeferralPolicy(
        rules=(LoadingRule("mail_s*", Loading.EAGER), LoadingRule("mail_*", Loading.DEFERRED)), default=Loading.EAGER
    )
    assert [policy.loading(name) for name in ("mail_send", "mail_read", "x")] == ["eager", "deferred", "eager"]


async def test_12_5_deferring_switches_on_when_it_saves_more_than_it_costs() -> None:
    many = [make(f"tool_{n}", "word " * 200) for n in range(10)]
    assert DeferralPolicy().overhead == 1136
    assert savings([each.descriptor for each in many]) > 1136
    assert DeferredTools(many).deferred([each.descriptor for each in many], {})
    assert not DeferredTools(TOOLS).deferred([each.descriptor for each in TOOLS], {})
    assert not DeferredTools(many, DeferralPolicy(enabled=False)).deferred([each.descriptor for each in many], {})
    exact = tool_tokens([TOOLS[0].descriptor]) - 3
    assert savings([TOOLS[0].descriptor]) == exact, "mail_send is three tokens"


async def test_12_5_without_anything_deferred_there_is_no_search_tool() -> None:
    assert (await seen(DeferredTools(TOOLS)))[0] == ["mail_send", "mail_read", "notes"]


async def test_12_5_an_agent_without_the_search_tool_gets_every_schema() -> None:
    behaviour = DeferredTools(TOOLS, ON)
    context = ctx(Phase.BEFORE_INFERENCE, tools=tuple(each.descriptor for each in TOOLS))
    assert actions(await behaviour.before_inference(context), Phase.BEFORE_INFERENCE) == (ExcludeTool(SEARCH_TOOL),)


async def test_12_5_what_policy_or_permissions_forbid_is_neither_named_nor_found() -> None:
    behaviour = DeferredTools(TOOLS, ON, permissions=Permissions(["deny mail_send"]))
    assert "mail_send" not in (await seen(behaviour))[1]
    _, result = await find(behaviour, {}, "mail")
    assert [each["name"] for each in result.data["tools"]] == ["mail_read"]
    _, result = await find(DeferredTools(TOOLS, ON), {}, "mail", policy=RunPolicy(excluded_tools=("mail_read",)))
    assert [each["name"] for each in result.data["tools"]] == ["mail_send"]


async def after_call(behaviour: DeferredTools, document: Any, name: str, result: ToolResult, step: int) -> Any:
    context = ctx(
        Phase.AFTER_TOOL_EXECUTE,
        document=document,
        tools=offered(behaviour),
        tool_name=name,
        tool_call_id="c",
        tool_result=result,
        step=step,
    )
    return reduced(document, actions(await behaviour.after_tool_execute(context), Phase.AFTER_TOOL_EXECUTE))


async def test_12_5_a_tool_unused_for_long_is_deferred_again() -> None:
    policy = DeferralPolicy(rules=ON.rules, enabled=True, demote_after=5)
    behaviour = DeferredTools(TOOLS, policy)
    document, result = await find(behaviour, {}, "+mail")
    document = await after_call(behaviour, document, SEARCH_TOOL, result, 1)
    document = await after_call(behaviour, document, "mail_read", ToolResult.success("mail_read"), 4)

    async def step(number: int, document: Any) -> Any:
        context = ctx(Phase.STEP_START, document=document, step=number, tools=offered(behaviour))
        return reduced(document, actions(await behaviour.step_start(context), Phase.STEP_START))

    assert await step(5, document) == document
    document = await step(6, document)
    assert (await seen(behaviour, document))[0] == ["mail_read", "notes", SEARCH_TOOL]
    document = await step(9, document)
    assert (await seen(behaviour, document))[0] == ["notes", SEARCH_TOOL]


async def test_12_5_a_tool_that_the_model_called_unseen_is_promoted() -> None:
    behaviour = DeferredTools(TOOLS, ON)
    document = await after_call(behaviour, {}, "mail_send", ToolResult.success("mail_send"), 2)
    assert "mail_send" in (await seen(behaviour, document))[0]
    assert await after_call(behaviour, {}, "notes", ToolResult.success("notes"), 2) == {}


@pytest.mark.parametrize("patience", [None, 5])
async def test_12_5_nothing_promoted_nothing_demoted(patience: int | None) -> None:
    behaviour = DeferredTools(TOOLS, DeferralPolicy(enabled=True, demote_after=patience))
    assert actions(await behaviour.step_start(ctx(Phase.STEP_START, step=9)), Phase.STEP_START) == ()
