"""Tools with a role: how they are declared, and how large what they give may be."""

import math

import pytest

from techrevati.agent.definition import AgentDefinition
from techrevati.agent.errors import BadToolFunction
from techrevati.agent.loop.tool_runs import ToolRun
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolResult
from techrevati.agent.typed_tool import FunctionTool, ToolRetry, tool
from techrevati.fleet.fleet import AlreadyDeclared, Fleet
from techrevati.fleet.pool_calls import SLACK, agent_of, held_to
from techrevati.store.errors import BadName


def pooled(name: str = "dig", role: str = "gpu", **more: object) -> FunctionTool:
    def body(n: int, ctx: ToolCallContext) -> int:
        return n

    made: FunctionTool = tool(id=name, role=role, **more)(body)  # type: ignore[call-overload]
    return made


def smith(name: str, *tools: FunctionTool) -> AgentDefinition:
    return AgentDefinition(id=name, model="m", tools=tools)


def test_an_agents_pooled_tools_are_served_by_the_role_they_name() -> None:
    fleet, dig = Fleet("f"), pooled()
    fleet.define(smith("a", dig))
    fleet.define(smith("b", dig))
    assert fleet.roles == ["a", "b", "gpu"]
    assert set(fleet.agents) == {"a", "b"} and set(fleet.tools) == {"tool:dig"}, "a tool is no agent"
    assert fleet.served["tool:dig"].role == "gpu"


def test_a_worker_of_the_pool_needs_the_tool_only() -> None:
    fleet = Fleet("f")
    fleet.tool(pooled())
    assert fleet.roles == ["gpu"] and fleet.celery_for("gpu") is not None


def test_two_tools_of_one_id_are_refused_before_anything_is_registered() -> None:
    fleet = Fleet("f")
    fleet.define(smith("a", pooled()))
    with pytest.raises(AlreadyDeclared, match="tool 'dig' is declared twice"):
        fleet.define(smith("b", pooled()))
    assert set(fleet.agents) == {"a"}


@pytest.mark.parametrize("role", ["no spaces", "a:b"])
def test_a_role_that_can_be_no_queue_is_refused(role: str) -> None:
    fleet = Fleet("f")
    with pytest.raises(BadName, match="role of tool 'dig'"):
        fleet.define(smith("a", pooled(role=role)))
    assert fleet.agents == {} == fleet.tools


def test_a_blank_role_and_a_tool_without_one_are_refused() -> None:
    with pytest.raises(BadToolFunction, match="its role is blank"):
        pooled(role=" ")
    with pytest.raises(BadName, match="role of tool 'dig'"):
        Fleet("f").tool(tool(id="dig")(lambda: None))


def test_a_turn_of_a_call_lasts_as_long_as_the_tool_says() -> None:
    assert agent_of(pooled()).timeout == math.inf
    given = agent_of(pooled(timeout=10.0, retry=ToolRetry(attempts=3, wait=1.0)))
    assert given.timeout == 3 * 10 + 1 + 2 + SLACK


@pytest.mark.parametrize("text", ["x" * 2000, '"' * 700])
def test_a_result_that_no_message_could_hold_is_an_error_for_the_model(text: str) -> None:
    held = held_to(ToolRun(ToolResult.success("dig", text)), 2048)
    assert held.result.is_error and "over the limit of" in (held.result.message or "")
    assert held_to(ToolRun(ToolResult.success("dig", "x" * 500)), 2048).result.data == "x" * 500


@pytest.mark.parametrize("data", [object(), math.nan, {"deep": [math.inf]}])
def test_a_result_that_is_not_json_is_an_error_for_the_model(data: object) -> None:
    held = held_to(ToolRun(ToolResult.success("dig", data)), 2048).result
    assert held.is_error and held.data["error"]["code"] == "result_not_json"
