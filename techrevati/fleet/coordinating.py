"""The composition root of a coordinator process."""

import asyncio
import signal
from collections.abc import Sequence

from techrevati.fleet.cards import Card
from techrevati.fleet.coordinator import Coordinator
from techrevati.fleet.ringing import ring_for
from techrevati.fleet.settings import Settings
from techrevati.telemetry.metrics import GateGauges


async def coordinate(fleet: str, settings: Settings, cards: Sequence[Card]) -> None:
    """Coordinate until SIGTERM or SIGINT, then give the partitions back."""
    if settings.otel:
        from techrevati.telemetry.setup import provide_metrics

        provide_metrics(f"{fleet}-coordinator")
    coordinator = Coordinator(
        fleet,
        settings,
        {card.name: card for card in cards},
        ring=ring_for(fleet, settings),
        gauges=GateGauges() if settings.otel else None,
    )
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, coordinator.stop)
    await coordinator.run()
