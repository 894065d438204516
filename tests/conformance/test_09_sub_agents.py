"""§9 of the agent semantics on a fleet: sub-agents."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.loop import test_09_sub_agents

globals().update(on_the_fleet(test_09_sub_agents))
