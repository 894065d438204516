"""§8 of the agent semantics on a fleet: parked calls, and the decisions that resolve them."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.loop import test_08_suspension

globals().update(on_the_fleet(test_08_suspension))
