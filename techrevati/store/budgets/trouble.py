"""What happens to money while the store is away, and what is said to it when it is back.

reserve ── unreachable ──▶ fail_closed: raise · fail_open: admit unchecked · local: this process's own books
settle  ── unreachable ──▶ owed ──▶ said with one of the next calls; else the lease charges the estimate
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Lock
from typing import TypeVar

from techrevati.store.budgets import calls
from techrevati.store.budgets.errors import ReservationClosed
from techrevati.store.budgets.names import BudgetKeys
from techrevati.store.budgets.records import Reservation, State
from techrevati.store.budgets.spec import Cost, Limits, Scope
from techrevati.store.calls import Call
from techrevati.store.errors import StoreUnfit, StoreUnreachable
from techrevati.store.twin import budgets as twin

T = TypeVar("T")

logger = logging.getLogger("techrevati.store.budgets")
logger.addHandler(logging.NullHandler())

Report = Callable[[str, Mapping[str, object]], None]
"""Told of a kind ("budget_unchecked", "budget_local", "budget_refused_unreachable", "budget_owed") and its fields."""

AWAY = (StoreUnreachable, StoreUnfit)
MARGIN = 15.0
"""A reservation outlives its call's timeout by so long (s)."""
REPAID = 16
OWED_MAX = 10_000
BOOKS_MAX = 10_000


class OnStoreError(StrEnum):
    FAIL_CLOSED = "fail_closed"
    FAIL_OPEN = "fail_open"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Owed:
    """A settlement that has not reached the store; `cost` None is a release."""

    keys: BudgetKeys
    call_id: str
    cost: Cost | None

    def call(self) -> Call[State]:
        return calls.settle(self.keys, self.call_id, self.cost)


def log_report(kind: str, fields: Mapping[str, object]) -> None:
    logger.warning("%s %s", kind, dict(fields))


class Fallback:
    """What one process does about budgets without the store.  Does no I/O; safe for threads."""

    def __init__(
        self,
        limits: Limits,
        policy: OnStoreError,
        *,
        report: Report = log_report,
        pause: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.limits, self.policy, self.report = limits, policy, report
        self._pause, self._monotonic, self._now_us = pause, monotonic, now_us
        self._lock = Lock()
        self._away_until = float("-inf")
        self._owed: deque[Owed] = deque(maxlen=OWED_MAX)
        self._books: dict[str, twin.Books] = {}

    @property
    def owed(self) -> int:
        return len(self._owed)

    def skips_store(self) -> bool:
        """Say if the store was away a moment ago and calls may do without it."""
        return self.policy is not OnStoreError.FAIL_CLOSED and self._monotonic() < self._away_until

    def reserve(
        self, keys: BudgetKeys, scope: Scope, call_id: str, estimate: Cost, ttl_us: int, error: Exception | None
    ) -> Reservation:
        """Decide without the store.

        Raises:
            StoreUnreachable: the policy is to fail closed.
            BudgetRefused: this process's own books refuse it.
        """
        if error is not None:
            self._away_until = self._monotonic() + self._pause
        if self.policy is OnStoreError.FAIL_CLOSED:
            assert error is not None
            self._owed.append(Owed(keys, call_id, None))  # it may have been written; the call is not made
            self.report("budget_refused_unreachable", {"tenant": keys.tenant, "call": call_id, "error": str(error)})
            raise error
        if self.policy is OnStoreError.FAIL_OPEN:
            self.report("budget_unchecked", {"tenant": keys.tenant, "call": call_id, "usd": estimate.usd})
            return Reservation(keys.tenant, call_id, estimate, State.UNCHECKED)
        made = self._say(keys, calls.reserve(keys, scope, self.limits, call_id, estimate, ttl_us))
        self.report("budget_local", {"tenant": keys.tenant, "call": call_id, "usd": estimate.usd})
        return replace(made, is_local=True)

    def settle_own(self, keys: BudgetKeys, reservation: Reservation, cost: Cost | None) -> State | None:
        """Settle what this process admitted alone; None: the store has to be told."""
        if reservation.is_local:
            state = self._say(keys, calls.settle(keys, reservation.call_id, cost))
        elif reservation.state is State.UNCHECKED:
            state = State.UNCHECKED
        else:
            return None
        self._owed.append(Owed(keys, reservation.call_id, cost))  # the store may have got the reservation after all
        return state

    def owe(self, keys: BudgetKeys, call_id: str, cost: Cost | None, error: Exception) -> State:
        self._owed.append(Owed(keys, call_id, cost))
        self.report("budget_owed", {"tenant": keys.tenant, "call": call_id, "error": str(error)})
        return State.OWED

    def to_repay(self) -> Iterator[Owed]:
        """Give a few settlements that are owed; what fails again is put back with `put_back`."""
        for _ in range(min(REPAID, len(self._owed))):
            try:
                yield self._owed.popleft()
            except IndexError:  # another thread took it
                return

    def put_back(self, owed: Owed) -> None:
        self._owed.appendleft(owed)

    def _say(self, keys: BudgetKeys, call: Call[T]) -> T:
        with self._lock:
            books = self._books.pop(keys.tenant, None) or twin.Books()
            self._books[keys.tenant] = books
            while len(self._books) > BOOKS_MAX:
                del self._books[next(iter(self._books))]
            now = self._now_us()
            reply = twin.speak(books, call, now)
            twin.forget(books, now)
        return call.parse(reply)


def accepted(made: Reservation) -> Reservation:
    """Refuse a reservation that ended before its call began.

    Raises:
        ReservationClosed: the call id was settled or released.
    """
    if made.state not in (State.OPEN, State.WRITTEN_OFF):
        raise ReservationClosed(made.call_id, made.state)
    return made
