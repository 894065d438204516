"""An agent whose session costs something, and what its fleet keeps of that."""

import asyncio
import os

from techrevati.fleet.failures import Retry
from techrevati.fleet.fleet import Fleet
from techrevati.fleet.outcome import Outcome
from techrevati.fleet.turn import Turn
from techrevati.runtime.usage_tracking import ModelPricing, UsageSnapshot, register_pricing
from tests.acceptance.diary import gate, tell

USAGE = UsageSnapshot(input_tokens=1000, output_tokens=100)


async def spend(turn: Turn) -> Outcome:
    """Pay for two calls in each of two turns; the second turn then waits at a gate on its first attempt."""
    for _ in range(2):
        await turn.session.arun_turn(lambda: asyncio.sleep(0, "so"), model="dear", usage=USAGE)
    tell(f"spent {turn.run_id} {turn.number} {turn.attempt} {os.getpid()}")
    if turn.number == 1:
        return turn.continue_()
    if turn.attempt == 1:
        await gate(turn.input["gate"])
    return turn.complete(turn.attempt)


def declare_spending(fleet: Fleet, role: str) -> None:
    register_pricing("dear", ModelPricing(1000.0, 1000.0))
    fleet.agent(role, name=f"spend.{role}", retry=Retry(tries=1), timeout=30)(spend)
    fleet.sinks()
