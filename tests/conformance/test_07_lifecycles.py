"""§7 of the agent semantics on a fleet: runs, tool calls, the loop's order."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.loop import test_07_lifecycles

globals().update(on_the_fleet(test_07_lifecycles))
