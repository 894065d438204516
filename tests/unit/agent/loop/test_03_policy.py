"""§3 of the agent semantics: what a run may use."""

import pytest

from techrevati.agent.loop.outcome import Finished
from techrevati.agent.policy import RunPolicy
from techrevati.agent.typed_tool import tool
from tests.unit.agent.scripted import Script, World, agent, calls, tool_results

ran: list[str] = []


@tool
def one() -> str:
    """One."""
    ran.append("one")
    return "1"


@tool
def two() -> str:
    """Two."""
    return "2"


@pytest.mark.parametrize(
    ("allowed", "excluded", "expected"),
    [
        (None, None, True),
        (("x",), None, True),
        (("y",), None, False),
        (None, ("x",), False),
        (("x",), ("x",), False),
        ((), None, False),
        ((" ",), None, False),
        ((" x ",), ("",), True),
    ],
)
@pytest.mark.parametrize("subject", ["tools", "skills", "agents"])
def test_3_membership_exclude_beats_allow_and_empty_allows_nothing(
    subject: str, allowed: tuple[str, ...] | None, excluded: tuple[str, ...] | None, expected: bool
) -> None:
    policy = RunPolicy(**{f"allowed_{subject}": allowed, f"excluded_{subject}": excluded})
    assert policy.allows(subject, "x") is expected  # type: ignore[arg-type]


def test_3_the_request_wins_and_the_agent_fills_only_what_is_absent() -> None:
    request = RunPolicy(allowed_tools=("a",), excluded_agents=())
    agents = RunPolicy(allowed_tools=("b",), excluded_tools=("c",), excluded_agents=("d",))
    assert request.filled_from(agents) == RunPolicy(allowed_tools=("a",), excluded_tools=("c",), excluded_agents=())


async def test_3_a_forbidden_tool_is_hidden_and_blocked_again_naming_the_policy() -> None:
    world = World(Script(calls(("c1", "one", {})), "done"), agent(tools=(one, two)))
    outcome, _ = await world.run(policy=RunPolicy(excluded_tools=("one",)))
    assert isinstance(outcome, Finished)
    assert [t.id for t in world.model.requests[0].tools] == ["two"]
    assert (
        tool_results((await world.thread()).messages)["c1"]["message"] == "tool 'one' is not allowed by the run policy"
    )
    assert ran == []


async def test_3_an_empty_allow_list_of_the_agent_allows_nothing() -> None:
    world = World(Script("done"), agent(tools=(one,), policy=RunPolicy(allowed_tools=())))
    await world.run()
    assert world.model.requests[0].tools == ()
