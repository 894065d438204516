"""Reservations that nobody settles, written off although their tenant does not call again.

    reserve ──ZADD──▶ expiries {tenant: when to look} ──due──▶ budget_sweep ──▶ looked at again, or out

A round costs the same however many tenants are idle: it reads the tenants that are due, a few at a time.  An entry is
taken out only after a sweep found nothing open; that sweep is counted, and whoever reserves after it sees another
count and announces the tenant again.  A few tenants of all are reviewed besides: one whose announcement was lost.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from techrevati.store.budgets import calls
from techrevati.store.budgets.names import BudgetKeys, expiries_key, tenants_key
from techrevati.store.budgets.records import Reservation, Swept
from techrevati.store.calls import Arg, Call

DUE, REVIEWED = 64, 16
"""Tenants swept in a round, and looked for besides."""
AGAIN = 60_000_000
"""us; who has something open is looked at as often: what is reserved later may expire earlier."""
TAKEN = 2 * 86_400_000_000
"""us; longer than any reservation, so that an announcement is always sooner than an entry that was taken."""

Command = tuple[Arg, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be sent together: commands, or calls."""

    commands: Sequence[Command] = ()
    calls: Sequence[Call[Swept]] = ()


Steps = Generator[Asked, list[Any], int]


@dataclass(slots=True)
class Announcements:
    """What one process has told the fleet of its tenants."""

    fleet: str
    _known: dict[str, int] = field(default_factory=dict)

    def due(self, made: Reservation, ttl_us: int) -> list[Command]:
        """Give what has to be said of a reservation's tenant: nothing, mostly."""
        seen = self._known.get(made.tenant)
        if seen == made.looks:
            return []
        at = made.expires - max(0, ttl_us - AGAIN)
        said: list[Command] = [("ZADD", expiries_key(self.fleet), "LT", at, made.tenant)]
        return said if seen is not None else [("SADD", tenants_key(self.fleet), made.tenant), *said]

    def said(self, made: Reservation) -> None:
        self._known[made.tenant] = made.looks


class WriteOffs:
    """Rounds of one fleet; does no I/O: a shell sends what `round` asks for."""

    def __init__(self, fleet: str) -> None:
        self._fleet, self._cursor = fleet, "0"

    def round(self, now_us: int | None = None) -> Steps:
        """Write off what is due; the answer is how many reservations that were.

        `now_us` is for tests: the server's clock holds otherwise.
        """
        index = expiries_key(self._fleet)
        time, head, (cursor, some) = yield Asked(
            [
                ("TIME",),
                ("ZRANGE", index, 0, DUE - 1, "WITHSCORES"),
                ("SSCAN", tenants_key(self._fleet), self._cursor, "COUNT", REVIEWED),
            ]
        )
        self._cursor = str(cursor)
        now = int(time[0]) * 1_000_000 + int(time[1]) if now_us is None else now_us
        due = [tenant for tenant, at in zip(head[::2], head[1::2], strict=True) if float(at) <= now]
        yield from self._review(index, [tenant for tenant in some if tenant not in due], now)
        if not due:
            return 0
        # Taken, not removed: if this process dies here, the review finds it.  The time is this round's alone.
        taken = now + TAKEN
        yield Asked([("ZADD", index, "XX", *(part for tenant in due for part in (taken, tenant)))])
        swept: list[Swept] = yield Asked(calls=[calls.sweep(BudgetKeys(self._fleet, tenant)) for tenant in due])
        back: list[Arg] = []
        for tenant, found in zip(due, swept, strict=True):
            if found.open:
                assert found.next_expiry is not None
                back += (min(found.next_expiry, now + AGAIN), tenant)
        # Who announced meanwhile is not at `taken` any more, and stays.
        out: Command = ("ZREMRANGEBYSCORE", index, taken, taken)
        yield Asked([("ZADD", index, "LT", *back), out] if back else [out])
        return sum(found.written_off for found in swept)

    def _review(self, index: str, tenants: Sequence[str], now: int) -> Steps:
        """Have those looked at that have something open and are not due for a look."""
        if not tenants:
            return 0
        heads = yield Asked(
            [("ZRANGE", BudgetKeys(self._fleet, tenant).open, 0, 0, "WITHSCORES") for tenant in tenants]
        )
        late: list[Arg] = []
        for tenant, first in zip(tenants, heads, strict=True):
            if first:
                late += (max(round(float(first[1])), now), tenant)
        if late:
            yield Asked([("ZADD", index, "LT", *late)])
        return 0
