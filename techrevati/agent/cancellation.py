"""Cooperative cancellation of one run: set once, seen by the loop and by every tool that runs."""

import asyncio


class Cancellation:
    """A flag that can be waited for.  Setting it again changes nothing; it is never cleared."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason: str | None = None

    def cancel(self, reason: str | None = None) -> None:
        """Ask for the end.  Call it on the loop's thread."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    @property
    def is_cancelled(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()
