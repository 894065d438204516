"""Waiting for a slot without asking: who is let out is told by a message to its process.

    settle ── hands the slot on ──▶ PUBLISH news:{gate}:<ear> "o ..." ──▶ Ear ──▶ Ticket ──▶ the caller starts

A message that is lost is noticed: with the connection it was lost on, or at the next look of the caller that has waited
here for longest.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

KEPT = 1024
"""Calls that are remembered once they were let out, so that a message that comes late is not taken for another's."""


@dataclass(frozen=True, slots=True)
class Out:
    """The call is let out, and has its slot."""

    generation: int


@dataclass(frozen=True, slots=True)
class Come:
    """It is first, but its tokens are there in so many seconds only: ask then."""

    wait: float


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Something may have been missed, or is not as it was: ask now."""


Told = Out | Come | AskAgain


class Ticket:
    """One caller that waits, told from any thread."""

    __slots__ = ("bell", "call_id", "told")

    def __init__(self, call_id: str) -> None:
        self.call_id, self.told = call_id, deque[Told]()
        self.bell: Callable[[], None] | None = None

    def tell(self, told: Told) -> None:
        self.told.append(told)
        bell = self.bell
        if bell is not None:
            bell()

    def next(self) -> Told | None:
        self.bell = None
        return self.told.popleft() if self.told else None

    def wait(self, seconds: float) -> Told | None:
        """Block this thread until something is told; None: nothing was."""
        rung = threading.Event()
        self.bell = rung.set
        if not self.told:
            rung.wait(seconds)
        return self.next()

    def about_to_ask(self) -> None:
        """What would make it ask again is answered by the question that goes out now."""
        self.told = deque(told for told in self.told if isinstance(told, Out))


class Ear:
    """All of one gate that wait in this process; a `NewsListener` keeps it told."""

    staleness = 2.0
    """Pings come twice as often while somebody waits: a connection that is dead in silence shows."""

    def __init__(self, name: str, channel: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.name, self.channel, self._monotonic = name, channel, monotonic
        self._waiting: dict[str, Ticket] = {}
        self._let_out: OrderedDict[str, None] = OrderedDict()
        self.orphans: deque[tuple[str, int]] = deque(maxlen=KEPT)
        """Let out, call and generation, when nobody waited for it any more: to be given back."""

    @property
    def used_at(self) -> float:
        return self._monotonic() if self._waiting else 0.0

    def open(self, call_id: str) -> Ticket:
        ticket = self._waiting[call_id] = Ticket(call_id)
        return ticket

    def close(self, ticket: Ticket, *, let_out: bool) -> None:
        """It waits no more."""
        self._waiting.pop(ticket.call_id, None)
        if let_out:
            self._let_out[ticket.call_id] = None
            while len(self._let_out) > KEPT:
                self._let_out.popitem(last=False)
        else:
            self.orphans.extend((ticket.call_id, told.generation) for told in ticket.told if isinstance(told, Out))

    def has_waited_longest(self, ticket: Ticket) -> bool:
        return next(iter(self._waiting.values()), None) is ticket

    def all_ask_again(self) -> None:
        for ticket in list(self._waiting.values()):
            ticket.tell(AskAgain())

    # What a `NewsListener` tells.

    def hear(self, message: str) -> None:
        """Take "o now generation call" (out) or "t now us call" (come in so many us)."""
        kind, _, number, call_id = message.split(" ", 3)
        ticket = self._waiting.get(call_id)
        if ticket is not None:
            ticket.tell(Out(int(number)) if kind == "o" else Come(int(number) / 1e6))
        elif kind == "o" and call_id not in self._let_out:
            self.orphans.append((call_id, int(number)))

    def follow(self, since: float | None) -> None:
        """Messages come from now on, or do not any more: whatever was said meanwhile is not known."""
        self.all_ask_again()

    def confirm(self, asked: float) -> None:
        """A ping came back."""

    def restarted(self, before: str, after: str) -> None:
        """Another server answers: `follow` has said what that means."""
