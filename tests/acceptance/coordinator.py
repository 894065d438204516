"""A coordinator of the test fleet: ``python -m tests.acceptance.coordinator``."""

import asyncio
import signal

from techrevati.fleet.coordinator import Coordinator
from techrevati.fleet.settings import load_settings
from techrevati.telemetry.logs import configure
from tests.acceptance.agents import FLEET


async def main() -> None:
    settings = load_settings()
    configure(settings.log_level, as_json=settings.log_json)
    coordinator = Coordinator(FLEET, settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, coordinator.stop)
    await coordinator.run()


asyncio.run(main())
