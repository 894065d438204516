"""§2 of the agent semantics on a fleet: phases, actions, composition, the gate."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.loop import test_02_behaviours

globals().update(on_the_fleet(test_02_behaviours))
