"""How long a model's first sign took, lately: a ring of the last calls, and its percentiles."""

from collections import deque


class Latencies:
    """The last `keep` latencies (s) of one model."""

    def __init__(self, keep: int = 256) -> None:
        self._last: deque[float] = deque(maxlen=keep)

    def add(self, seconds: float) -> None:
        self._last.append(seconds)

    def __len__(self) -> int:
        return len(self._last)

    def percentile(self, fraction: float) -> float | None:
        """Give the latency that `fraction` of the calls stayed within (nearest rank), None without any."""
        if not self._last:
            return None
        ordered = sorted(self._last)
        return ordered[min(len(ordered) - 1, max(0, -(-int(fraction * 1000) * len(ordered) // 1000) - 1))]
