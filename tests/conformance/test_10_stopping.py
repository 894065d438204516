"""§10 of the agent semantics on a fleet: stop conditions."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.loop import test_10_stopping

globals().update(on_the_fleet(test_10_stopping))
