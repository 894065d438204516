"""What a coordinator does for gates and budgets: looks at the ones, charges what nobody settles of the others."""

import asyncio
import logging

from techrevati.fleet.gates import gates_key, line_of, look_calls
from techrevati.store.aio import AsyncStore
from techrevati.store.budgets import AsyncBudget
from techrevati.store.gates import Picture
from techrevati.telemetry.metrics import GateSeen

log = logging.getLogger(__name__)

ROUNDS = 16


async def gates_seen(store: AsyncStore, fleet: str) -> list[GateSeen]:
    """Give the fleet's gates as they are now; one that nobody has asked yet is not there."""
    asked = look_calls(fleet, await store.command("SMEMBERS", gates_key(fleet)))
    seen = await asyncio.gather(*(store.run(call) for _, call in asked), return_exceptions=True)
    lines = [line_of(name, one) for (name, _), one in zip(asked, seen, strict=True) if isinstance(one, Picture)]
    return [GateSeen(one.name, one.state, one.slots_used, one.slots, one.in_line, one.levels) for one in lines]


async def write_off(budget: AsyncBudget) -> int:
    """Charge reservations that are over, in some rounds at most; give how many."""
    charged = 0
    for _ in range(ROUNDS):
        off = await budget.write_off()
        charged += off
        if not off:
            break
    if charged:
        log.warning("%d reservations of calls that nobody settled are charged at their estimates", charged)
    return charged
