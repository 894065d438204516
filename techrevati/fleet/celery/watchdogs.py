"""Two ways a worker dies while its process lives, and what to do about each.

    loop lag        an event loop that no longer turns     ─▶ stacks to the log, exit 70
    consumer stall  tickets wait, places are free, nothing ─▶ restart the consumer; the 3rd time in
                    arrives                                   vain, exit 70

Pure decisions first; the threads that observe and act are below.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

log = logging.getLogger(__name__)

EX_SOFTWARE = 70  # sysexits.h: internal software error; a supervisor restarts it


@dataclass(frozen=True, slots=True)
class WatchdogLimits:
    """How long is too long, in seconds; `lag_exit` or `stall_after` 0 switches that dog off."""

    lag_warn: float = 1.0
    lag_exit: float = 60.0
    last_chance: float = 5.0
    stall_after: float = 10.0
    stall_restarts: int = 3
    exit_grace: float = 30.0


class Lag(StrEnum):
    FINE = "fine"
    SLOW = "slow"
    SILENT = "silent"  # dump the stacks; it may still come back
    DEAD = "dead"


def judge_lag(silent_for: float, limits: WatchdogLimits) -> Lag:
    """Judge a loop by how long it has not answered."""
    if silent_for >= limits.lag_exit + limits.last_chance:
        return Lag.DEAD
    if silent_for >= limits.lag_exit:
        return Lag.SILENT
    return Lag.SLOW if silent_for > limits.lag_warn else Lag.FINE


def silence(before: float, elapsed: float, interval: float, answered: bool) -> float:
    """Add one look at the loop to its silence.

    A look counts for no more than two intervals: a process that was stopped and continued, or a
    machine that slept, has not been silent.
    """
    return 0.0 if answered else before + min(elapsed, 2 * interval)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the consumer looks like from outside."""

    ready: int | None  # work that waits; None = the store could not be asked
    free_places: int
    since_last_ticket: float  # s


def stalled(seen: Observation, *, after: float) -> bool:
    """Tell whether the consumer ignores work it has room for."""
    return bool(seen.ready) and seen.free_places > 0 and seen.since_last_ticket > after


class Step(StrEnum):
    WAIT = "wait"
    RESTART = "restart"
    GIVE_UP = "give up"


def next_step(seen: Observation, restarts: int, limits: WatchdogLimits) -> tuple[Step, int]:
    """Decide what to do about a consumer; returns the restarts in vain so far beside it.

    `since_last_ticket` counts from the last ticket or the last restart, whichever is later.
    """
    if not stalled(seen, after=limits.stall_after):
        return Step.WAIT, restarts
    if restarts >= limits.stall_restarts:
        return Step.GIVE_UP, restarts
    return Step.RESTART, restarts + 1


class _Watchdog:
    """A daemon thread that looks every `interval` seconds until it is stopped."""

    def __init__(self, name: str, interval: float) -> None:
        self.interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            try:
                self.look()
            except Exception:
                log.exception("%s: could not look", self._thread.name)

    def look(self) -> None:
        raise NotImplementedError


class LoopWatchdog(_Watchdog):
    """Ask the loop to answer; end the process when it has stopped for good."""

    def __init__(
        self,
        ask: Callable[[Callable[[], None]], object],
        limits: WatchdogLimits,
        *,
        interval: float = 0.5,
        die: Callable[[int], object] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` is ``loop.call_soon_threadsafe``."""
        super().__init__("techrevati-loop-watchdog", interval)
        self._ask, self._limits, self._die, self._clock = ask, limits, die, clock
        self._answered, self._verdict, self._silent = True, Lag.FINE, 0.0
        self._looked_at = clock()

    def look(self) -> None:
        now, answered = self._clock(), self._answered
        self._silent = silence(self._silent, now - self._looked_at, self.interval, answered)
        self._looked_at = now
        verdict, before = judge_lag(self._silent, self._limits), self._verdict
        self._verdict = verdict
        if answered:
            if before is not Lag.FINE:
                log.warning("event loop answers again")
            self._answered = False
            self._ask(self._answer)
        elif verdict is not before:
            self._act(verdict)

    def _act(self, verdict: Lag) -> None:
        if verdict is Lag.SLOW:
            log.warning("event loop silent for %.1f s: a turn blocks it", self._silent)
            return
        log.critical("event loop silent for %.0f s: a turn blocks it; stacks follow", self._silent)
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
        if verdict is Lag.DEAD:
            log.critical("event loop did not come back: exit %d, leases will expire", EX_SOFTWARE)
            self._die(EX_SOFTWARE)

    def _answer(self) -> None:
        self._answered = True


class StallWatchdog(_Watchdog):
    """Restart a consumer that ignores ready work; give the process up when that does not help."""

    def __init__(
        self,
        *,
        ready: Callable[[], int],
        free_places: Callable[[], int],
        last_ticket: Callable[[], float],
        restart: Callable[[str], object],
        give_up: Callable[[str], object],
        limits: WatchdogLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("techrevati-stall-watchdog", max(0.1, min(2.5, limits.stall_after / 4)))
        self._ready, self._free_places, self._last_ticket = ready, free_places, last_ticket
        self._restart, self._give_up, self._limits, self._clock = restart, give_up, limits, clock
        self._restarts, self._acted_at = 0, clock()

    def look(self) -> None:
        last_ticket, now = self._last_ticket(), self._clock()
        if last_ticket > self._acted_at:
            if self._restarts:
                log.warning("consumer stall: tickets arrive again")
            self._restarts, self._acted_at = 0, last_ticket
        quiet = now - self._acted_at
        if quiet <= self._limits.stall_after:
            return
        seen = Observation(self._ask_ready(), self._free_places(), quiet)
        step, self._restarts = next_step(seen, self._restarts, self._limits)
        if step is Step.WAIT:
            return
        self._acted_at = now
        said = f"{seen.ready} ready, {seen.free_places} free places, no ticket for {quiet:.1f} s"
        if step is Step.GIVE_UP:
            log.critical("consumer stall: %s after %d restarts; giving up", said, self._restarts)
            self._give_up(said)
        else:
            log.error("consumer stall: %s; restarting the consumer (%d)", said, self._restarts)
            self._restart(said)

    def _ask_ready(self) -> int | None:
        try:
            return self._ready()
        except Exception as error:  # noqa: BLE001  # an unreachable store is no stall: it has its own alarm
            log.debug("consumer stall: cannot ask for ready work: %r", error)
            return None
