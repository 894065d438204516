"""§14 of the agent semantics on a fleet: runs over threads."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.loop import test_14_runs

globals().update(on_the_fleet(test_14_runs))
