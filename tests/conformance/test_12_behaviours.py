"""§12 of the agent semantics on a fleet: what is built on behaviours."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.behaviours import test_in_runs

globals().update(on_the_fleet(test_in_runs))
