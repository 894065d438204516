"""Starts that are promised in the server's time, told in ours."""

OFFSET_KEPT = 1.0
"""Seconds for which the offset between the server's clock and ours is believed."""


class Clocks:
    """What lies between the server's clock and this process's monotonic one; s."""

    def __init__(self) -> None:
        self._offset = float("inf"), 0.0
        self._promised = 0.0, 0.0

    def ours(self, told: float, promised: float, now: float) -> float:
        """Give the moment of a promise; it was told at `told`, and heard `now`."""
        offset, since = self._offset
        if now - told <= offset or now - since > OFFSET_KEPT:
            offset = now - told
            self._offset = offset, now
        start = promised + offset
        last, last_start = self._promised
        if promised >= last:
            start = max(start, last_start + 1e-6)
            self._promised = promised, start
        return start
