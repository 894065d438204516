"""Hand-off inside a run: a persona laid over the agent."""

from typing import Any

import pytest

from techrevati.agent.actions import (
    AddSystemContext,
    Block,
    ExcludeTool,
    OverrideInference,
    OverrideModel,
    Phase,
)
from techrevati.agent.behaviours.handoff import HAND_OFF_TOOL, ActivePersona, BadPersona, HandOff, Persona
from techrevati.agent.state.scope import StateScope
from techrevati.agent.tools import ToolDescriptor, ToolError
from tests.unit.agent.behaviours.contexts import actions, call_ctx, ctx, only, reduced

LAWYER = Persona(
    name="lawyer",
    description="reads contracts",
    instructions="Be exact.",
    model="m2",
    options={"temperature": 0},
    allowed_tools=("read",),
)
CLERK = Persona(name="clerk", description="files things", excluded_tools=("pay", HAND_OFF_TOOL))
TOOLS = tuple(ToolDescriptor(name) for name in ("read", "pay", HAND_OFF_TOOL))


async def over(behaviour: HandOff, document: Any, to: str) -> Any:
    effect = await behaviour.tools[0].run({"to": to, "reason": "why"}, call_ctx(HAND_OFF_TOOL, document=document))
    return reduced(document, list(effect.actions))


async def inference(behaviour: HandOff, document: Any) -> tuple[Any, ...]:
    context = ctx(Phase.BEFORE_INFERENCE, document=document, tools=TOOLS)
    return actions(await behaviour.before_inference(context), Phase.BEFORE_INFERENCE)


async def gate(behaviour: HandOff, document: Any, tool: str) -> tuple[Any, ...]:
    context = ctx(Phase.BEFORE_TOOL_EXECUTE, document=document, tool_name=tool, tool_call_id="c")
    return actions(await behaviour.before_tool_execute(context), Phase.BEFORE_TOOL_EXECUTE)


async def test_12_9_a_persona_brings_its_model_words_and_tools() -> None:
    behaviour = HandOff([LAWYER, CLERK])
    document = await over(behaviour, {}, "lawyer")
    found = await inference(behaviour, document)
    assert only(found, OverrideModel) == [OverrideModel("m2")]
    assert only(found, OverrideInference) == [OverrideInference({"temperature": 0})]
    assert "You are lawyer now. Be exact." in [action.text for action in only(found, AddSystemContext)]
    assert only(found, ExcludeTool) == [ExcludeTool("pay")]


async def test_12_9_without_a_hand_off_the_agent_is_itself() -> None:
    behaviour = HandOff([LAWYER])
    assert [type(action) for action in await inference(behaviour, {})] == [AddSystemContext]
    assert await gate(behaviour, {}, "pay") == ()


async def test_12_9_the_allow_list_is_enforced_at_the_gate_too() -> None:
    behaviour = HandOff([LAWYER])
    document = await over(behaviour, {}, "lawyer")
    assert await gate(behaviour, document, "read") == ()
    assert await gate(behaviour, document, "pay") == (Block("tool 'pay' is not one of lawyer's"),)


async def test_12_9_the_hand_off_tool_is_always_allowed() -> None:
    behaviour = HandOff([LAWYER, CLERK])
    for name in ("lawyer", "clerk"):
        document = await over(behaviour, {}, name)
        assert await gate(behaviour, document, HAND_OFF_TOOL) == ()
        assert ExcludeTool(HAND_OFF_TOOL) not in await inference(behaviour, document)


async def test_12_9_a_hand_off_can_go_on_and_come_back() -> None:
    behaviour = HandOff([LAWYER, CLERK])
    document = await over(behaviour, await over(behaviour, {}, "lawyer"), "clerk")
    assert await gate(behaviour, document, "pay") != ()
    assert await gate(behaviour, await over(behaviour, document, "self"), "pay") == ()


async def test_12_9_an_unknown_persona_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ToolError, match="no persona 'x'; there are: lawyer, self"):
        await over(HandOff([LAWYER]), {}, "x")


async def test_12_9_a_persona_that_is_gone_after_a_deploy_is_the_agent_itself() -> None:
    assert await gate(HandOff([CLERK]), {"__persona": {"active": "lawyer"}}, "pay") == ()


def test_12_9_the_persona_ends_with_the_run() -> None:
    assert ActivePersona.SCOPE is StateScope.RUN


@pytest.mark.parametrize("names", [("",), ("self",), ("a", "a")])
def test_12_9_personas_that_cannot_be_told_apart_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(BadPersona):
        HandOff([Persona(name=name, description="") for name in names])
