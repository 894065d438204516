"""§4 of the agent semantics on a fleet: tools, what they may use, and how a round carries them out."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.loop import test_04_tools

globals().update(on_the_fleet(test_04_tools))
