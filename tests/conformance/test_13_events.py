"""§13 of the agent semantics on a fleet: the event stream."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.loop import test_13_events

globals().update(on_the_fleet(test_13_events))
