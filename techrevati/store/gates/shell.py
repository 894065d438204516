"""What a gate for a loop and one for threads share: the core, the news, what needs no talking; and their options."""

import time
from collections.abc import Callable, Mapping
from typing import TypedDict

from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.store.gates.core import Core
from techrevati.store.gates.events import Listener, Listeners
from techrevati.store.gates.listening import NewsListener
from techrevati.store.gates.spec import GateSpec
from techrevati.store.gates.waiting import Ear


class Admit(TypedDict, total=False):
    """How a call asks to be let out; it gets all it asks for, or nothing."""

    call_id: str | None
    """Of this attempt; sent again, it gets the same answer."""
    holder: str | None
    """The worker; this process if not given."""
    priority: int
    tenant: str
    timeout: float
    """Seconds that the call may take, 60 if not given; its slot's lease lasts `spec.margin` longer."""
    wait: float | None
    """Seconds to wait here for a start, 0 if not given; None as long as it takes.  No open breaker is waited for."""
    booking: str
    """A name for the place of a caller that is refused, to come back with (run and turn)."""


class Settle(TypedDict, total=False):
    """How a call ended."""

    costs: Mapping[str, float] | None
    """What it really cost; the rest flows back, more is owed.  Absent buckets stay at the estimate."""
    outcome: str
    """"ok", "fail", or "none" where it says nothing of the dependency."""
    failure_class: AgentFailureClass | str | None
    """Decides if a failure is evidence (`BreakerSpec.records`)."""
    latency: float | None
    """Seconds; since it was let out, if not given."""
    overload: bool | None
    """The provider was overloaded (429): adaptive slots halve."""


class Feed(TypedDict, total=False):
    """What the provider said of its limits."""

    retry_after: float | None
    """Seconds to stay away."""
    remaining: Mapping[str, float] | None
    """Per bucket: tokens."""
    reset: Mapping[str, float] | None
    """Per bucket: seconds until it is full."""
    limit: Mapping[str, float] | None
    """Per bucket: what it allows a minute; a lower one takes the place of what is declared, for everyone
    (`GateSpec.provider_limits`)."""


class Shell:
    """What both shells share: the core, the news, what needs no talking."""

    def __init__(
        self,
        url: str,
        fleet: str,
        spec: GateSpec,
        *,
        worker: str | None = None,
        news: NewsListener | None = None,
        on_event: Listener | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        listeners = Listeners(*([on_event] if on_event else []))
        self.core = Core(fleet, spec, worker=worker, listeners=listeners, monotonic=monotonic, wall=wall)
        self._own_news = news is None
        self._news = news or NewsListener(url)
        self._watching = False
        self._heard_by: Ear | None = None

    @property
    def name(self) -> str:
        return self.core.name

    @property
    def spec(self) -> GateSpec:
        """What the fleet has declared, as far as this process knows."""
        return self.core.spec

    def on_event(self, listener: Listener) -> None:
        """Hand state changes, quarantines and store trouble to a function; from whichever thread notices."""
        self.core.listeners.add(listener)

    def check(self) -> None:
        """Refuse at once what the local view refuses: no round trip.

        Raises:
            GateRefused: the breaker is open, or this worker is quarantined.
        """
        refused = self.core.refusal()
        if refused is not None:
            raise refused
        self.attend_view()

    def refuses(self) -> bool:
        """Whether the local view is fresh and refuses every call: no round trip."""
        view, now = self.core.view, self.core.monotonic()
        return view.is_fresh(now) and view.refuses(now) is not None

    @property
    def seen(self) -> CircuitState:
        """The breaker's state in the local view, however old that is."""
        return self.core.view.circuit(self.core.monotonic())

    def attend_view(self) -> None:
        view = self.core.view
        if view.staleness == 0 or self.core.spec.breaker is None:
            return
        if not self._watching:
            self._watching = True
            self._news.watch(view)
        elif self.core.monotonic() - view.confirmed > view.staleness / 2:
            self._news.ask()

    def attend(self, wait: float | None) -> None:
        """Have the news come here before they are needed: of the breaker, and of who is let out to a slot."""
        self.attend_view()
        if wait == 0 or self.core.spec.slots is None:
            return
        self.core.notice_fork()
        ear, before = self.core.ear, self._heard_by
        if ear is before:
            return
        self._heard_by = ear
        self._news.watch(ear)
        if before is not None:  # the parent's, of a process that was forked
            self._news.leave(before)

    def leave(self) -> None:
        if self._own_news:
            self._news.close()
            return
        if self._watching:
            self._news.leave(self.core.view)
        if self._heard_by is not None:
            self._news.leave(self._heard_by)
