"""Taking from buckets without a word about what became of the call, step by step, for a shell that may block or await.

    Taking.try_take(tokens) ── gate_take: one bucket, now or not at all ──▶ taken │ not there │ ask the gate
          .take(tokens, wait) ── gate_admit: who waits is told its start once
          .pay(costs, wait) ── several buckets, all or none; what no waiting could satisfy is owed

Who takes now or not at all has a lane, on which it asks for one thing at a time; the bucket remembers the last that
each lane was given, so what is sent twice is given once, and no record is kept for each.
"""

import os
from collections import deque
from collections.abc import Mapping

from techrevati.runtime.rate_limit import RateLimitExceededError
from techrevati.store.errors import StoreUnreachable
from techrevati.store.gates.core import Core
from techrevati.store.gates.errors import CostTooLarge, GateRefused
from techrevati.store.gates.records import NONE
from techrevati.store.gates.steps import Run, Steps

LEASE = 10.0
"""Seconds: nothing is held after a bucket gave its tokens; so long a call that is sent twice counts once."""


class Taking:
    """Takes from one bucket of a gate; safe for threads and tasks alike."""

    def __init__(self, core: Core, bucket: str, name: str) -> None:
        """`name` is what errors call it."""
        self._core, self._bucket, self._name = core, bucket, name
        self._free, self._process = deque[tuple[str, int]](), os.getpid()

    def try_take(self, tokens: float) -> Steps[bool]:
        """Take if they are there."""
        core = self._core
        terms = core.terms
        if terms is not None and not core.away and terms.plain and terms.could_hold(self._bucket, tokens):
            lane, number = self._lane()
            core.trips += 1
            try:
                wait_us: int = yield Run(terms.take(self._bucket, tokens, lane, number))
            except StoreUnreachable as error:  # whether it was taken is not known: the lane is not used again
                core.away.trouble(error)
            else:
                self._free.append((lane, number))
                if wait_us >= 0:
                    return wait_us == 0
        try:
            yield from self.take(tokens, 0.0)
        except RateLimitExceededError:
            return False
        return True

    def take(self, tokens: float, wait: float | None) -> Steps[None]:
        """Take, waiting so long if need be.

        Raises:
            RateLimitExceededError: that is known at once, and nothing is waited for in vain.
        """
        try:
            yield from self._core.admit({self._bucket: tokens}, timeout=LEASE, wait=wait)
        except (GateRefused, CostTooLarge) as refused:
            raise RateLimitExceededError(self._name, tokens) from refused

    def charge(self, tokens: float) -> Steps[None]:
        """Take what is used already, into debt if need be."""
        yield from owe(self._core, {self._bucket: tokens})

    def level(self) -> Steps[float]:
        """Tokens now; below zero what is promised or owed."""
        picture = yield from self._core.look()
        return picture.levels[self._bucket]

    def _lane(self) -> tuple[str, int]:
        if os.getpid() != self._process:  # a fork: these lanes are the parent's
            self._free, self._process = deque(), os.getpid()
        try:
            lane, last = self._free.pop()
        except IndexError:
            lane, last = self._core.new_id(), 0
        return lane, last + 1


def owe(core: Core, costs: Mapping[str, float]) -> Steps[None]:
    """Take from several buckets what is used already."""
    back = {bucket: -tokens for bucket, tokens in costs.items()}
    yield from core.report(core.new_id(), core.worker, generation=0, outcome=NONE, back=back)


def pay(core: Core, used: Mapping[str, float], wait: float | None) -> Steps[None]:
    """Take for a call that was made, all or none, waiting if the buckets are low; what none could hold is owed."""
    owed, due = dict[str, float](), dict[str, float]()
    for name, tokens in used.items():
        bucket = core.spec.bucket(name)
        if bucket is not None and tokens > 0:
            (owed if tokens > bucket.capacity else due)[name] = float(tokens)
    if owed:
        yield from owe(core, owed)
    if due:
        try:
            yield from core.admit(due, timeout=LEASE, wait=wait)
        except GateRefused as refused:
            name, tokens = next(iter(due.items()))
            raise RateLimitExceededError(name, tokens) from refused
