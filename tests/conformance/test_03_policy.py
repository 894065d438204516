"""§3 of the agent semantics on a fleet: the run policy."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.loop import test_03_policy

globals().update(on_the_fleet(test_03_policy))
