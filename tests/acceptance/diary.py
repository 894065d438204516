"""What agents tell a test, and the gates at which they wait for it: files, which outlive whatever is killed."""

import asyncio
import os
from pathlib import Path


def home() -> Path:
    return Path(os.environ["ACCEPTANCE_HOME"])


def tell(line: str) -> None:
    """Append a line to the diary; one write, so that lines of many processes do not mix."""
    with (home() / "diary").open("a") as diary:
        diary.write(line + "\n")


async def gate(name: str) -> None:
    """Wait until the test opens a gate."""
    while not (home() / f"gate-{name}").exists():
        await asyncio.sleep(0.01)
