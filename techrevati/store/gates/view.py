"""What one process knows of a gate's breaker without asking: a reply, a message, a ping of a moment ago.

reply │ news │ pong ──▶ View ──fresh?──▶ refuse, or let out, with no round trip
                            └── no ──▶ one round trip
"""

import time
from collections.abc import Callable

from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.store.gates.events import BreakerChanged, Listeners, StoreRestarted, WorkerQuarantined
from techrevati.store.gates.records import STATES, Seen

CLOSED, OPEN, HALF_OPEN = 0, 1, 2
FORCED_OPEN, DISABLED = 1, 2
FORCED = ("", "open", "disabled")


class View:
    """The breaker as last seen; times are this process's monotonic seconds.

    It is written from the listener's thread and read from any: each field is one reference, and the generation a
    caller takes is read before the state, so a race makes its result old, which is harmless.
    """

    __slots__ = (
        "_follows",
        "_monotonic",
        "_now_us",
        "_read_at",
        "_refused",
        "channel",
        "confirmed",
        "forced",
        "gate",
        "generation",
        "holder",
        "listeners",
        "out_until",
        "staleness",
        "state",
        "until",
        "used_at",
    )

    def __init__(
        self,
        gate: str,
        holder: str,
        channel: str,
        staleness: float,
        listeners: Listeners,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.gate, self.holder, self.channel, self.staleness = gate, holder, channel, staleness
        self.listeners, self._monotonic = listeners, monotonic
        self.used_at = 0.0
        self._follows = float("inf")
        self.reset()

    def reset(self) -> None:
        """Know nothing."""
        self.state, self.generation, self.forced = CLOSED, 0, 0
        self.until = self.out_until = self.confirmed = self._read_at = float("-inf")
        self._now_us = self._refused = 0

    def take(self, seen: Seen, asked: float) -> None:
        """Take what a script saw; `asked` is when the question left, so it is no older than that."""
        if seen.now_us < self._now_us:
            return
        now = self._monotonic()
        before, generation, forced = self.state, self.generation, self.forced
        self._now_us = seen.now_us
        self.until = now + seen.left_us / 1e6
        self.state, self.generation, self.forced = seen.state, seen.generation, seen.forced
        if asked > self.confirmed:
            self.confirmed = asked
        if asked > self._read_at:
            self._read_at = asked
        if seen.out_us > 0:
            if self.out_until < now:
                self.listeners.tell(WorkerQuarantined(self.gate, self.holder, seen.out_us / 1e6))
            self.out_until = now + seen.out_us / 1e6
        if generation != seen.generation:
            self._refused = 0
        if (before, forced) != (seen.state, seen.forced) or (generation and generation != seen.generation):
            self.listeners.tell(
                BreakerChanged(
                    self.gate,
                    STATES[before],
                    STATES[seen.state],
                    seen.generation,
                    seen.left_us / 1e6,
                    FORCED[seen.forced],
                )
            )

    def hear(self, message: str) -> None:
        """Take news: "s state generation left forced now"."""
        kind, *numbers = message.split(" ")
        if kind == "s":
            state, generation, left, forced, now_us = map(int, numbers)
            self.take(Seen(now_us, state, generation, left, forced), self._monotonic())

    def follow(self, since: float | None) -> None:
        """All news said after `since` will be heard; None: the connection is lost, and what is said meanwhile."""
        self._follows = float("inf") if since is None else since

    @property
    def is_followed(self) -> bool:
        """Whether news reach it now."""
        return self._follows < float("inf")

    def confirm(self, asked: float) -> None:
        """Nothing was said until then: a ping sent at `asked` came back behind all news.

        That proves nothing of a view read before the news were followed: what was said in between is lost.
        """
        if asked > self.confirmed and self._read_at >= self._follows:
            self.confirmed = asked

    def restarted(self, before: str, after: str) -> None:
        """Another server answers: its clock may be behind, and it may know less, so what is known is asked again."""
        self._now_us, self.confirmed = 0, float("-inf")
        self.listeners.tell(StoreRestarted(self.gate, before, after))

    def is_fresh(self, now: float) -> bool:
        """Whether it is no older than it may be; 0 s is never fresh."""
        self.used_at = now
        return now - self.confirmed < self.staleness

    def refuses(self, now: float) -> tuple[str, float | None] | None:
        """Say why a call is refused for sure, and for how long (s, None: unknown)."""
        if self.forced == FORCED_OPEN:
            return "forced", None
        if self.out_until > now:
            return "quarantined", self.out_until - now
        if self.state == OPEN and self.until > now and self.forced == 0:
            return "breaker", self.until - now
        return None

    def lets(self, now: float) -> bool:
        """Whether nothing but buckets and slots could refuse a call."""
        if self.out_until > now:
            return False
        return self.forced == DISABLED or (self.state == CLOSED and self.until <= now and self.forced == 0)

    def next_refused(self) -> int:
        """Count those refused since the last change: each is told to come a little later than the one before."""
        self._refused += 1
        return self._refused - 1

    def circuit(self, now: float) -> CircuitState:
        """The state a caller would meet."""
        if self.forced:
            return CircuitState.OPEN if self.forced == FORCED_OPEN else CircuitState.CLOSED
        if self.state == OPEN and self.until <= now:
            return CircuitState.HALF_OPEN
        return STATES[self.state]
