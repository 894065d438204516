"""§11 of the agent semantics on a fleet: retries, fallback models, broken streams, cancellation."""

from tests.conformance.rules import on_the_fleet
from tests.unit.agent.loop import test_11_inference

globals().update(on_the_fleet(test_11_inference))
