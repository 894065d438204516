"""Tokens of one bucket, for who takes them now or not at all: the shortest way to a shared limit.

    Taker.ask(tokens) ──▶ Take(call) ──gate_take──▶ taken │ not there │ ask the gate

A caller has a lane, on which it asks for one thing at a time; the bucket remembers the last that each lane was given,
so what is sent twice is given once, and a call of its own is not kept for each.
"""

import os
from collections import deque
from dataclasses import dataclass

from techrevati.store.calls import Call
from techrevati.store.gates.link import Link


@dataclass(slots=True)
class Take:
    """One thing asked for on a lane."""

    call: Call[int]
    lane: str
    number: int


class Taker:
    """Asks for tokens of one bucket of a gate; safe for threads and tasks alike."""

    def __init__(self, link: Link, bucket: str) -> None:
        self._link, self._bucket = link, bucket
        self._free, self._process = deque[tuple[str, int]](), os.getpid()

    def ask(self, tokens: float) -> Take | None:
        """Give what to say; None where it takes more than that: `Core.admit` knows what."""
        link = self._link
        terms = link.terms
        if terms is None or link.away or not (terms.plain and terms.could_hold(self._bucket, tokens)):
            return None
        if os.getpid() != self._process:  # a fork: these lanes are the parent's
            self._free, self._process = deque(), os.getpid()
        try:
            lane, number = self._free.pop()
        except IndexError:
            lane, number = link.new_id(), 0
        link.trips += 1
        return Take(terms.take(self._bucket, tokens, lane, number + 1), lane, number + 1)

    def took(self, take: Take, wait_us: int) -> bool | None:
        """Say what came of it; None: ask the gate.  A lane whose answer never came is not used again."""
        self._free.append((take.lane, take.number))
        return None if wait_us < 0 else wait_us == 0
