"""What stands in the books: accounts of a level, reservations, and what was noticed.

level ── usd.total · usd.day · usd.month · tokens.total · … ──▶ Account(spent, reserved, limit)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from techrevati.store.budgets.spec import Cost, Unit, Window
from techrevati.store.records import pairs

ACCOUNTS = tuple(f"{unit}.{window}" for unit in Unit for window in Window)


class State(StrEnum):
    """What became of a reservation."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"
    WRITTEN_OFF = "off"
    CORRECTED = "corrected"
    UNCHECKED = "unchecked"
    """The store was away: admitted without a look, as `on_store_error` says."""
    OWED = "owed"
    """The store was away: said again with one of the next calls."""
    UNKNOWN = "unknown"
    """No such reservation is known, or not any more."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money set aside for one call, until `expires` (us since the epoch)."""

    tenant: str
    call_id: str
    estimate: Cost
    state: State
    expires: int = 0
    is_local: bool = False
    """Held by this process alone, because the store was away."""
    looks: int = field(default=0, compare=False, repr=False)
    """Sweeps of the tenant that had found nothing open: after each, it has to be announced again."""


@dataclass(slots=True)
class Account:
    """One unit in one window: micro-dollars or tokens."""

    spent: int = 0
    reserved: int = 0
    told: int = 0
    """Highest threshold that was told in this window, in percent."""
    refusal_told: bool = False
    set: str = ""
    """An operator's limit: digits, "-" for none, "" to follow what is declared."""
    limit: int | None = None

    @property
    def committed(self) -> int:
        """Spent or set aside: what the limit is compared with."""
        return self.spent + self.reserved

    @property
    def left(self) -> int | None:
        """What may still be reserved; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.committed)


@dataclass(slots=True)
class Level:
    """The accounts of a tenant, a project, a thread or a run."""

    id: str
    day: int = 0
    """The UTC day that is counted, since the epoch."""
    month: int = 0
    """The UTC month that is counted: 12 * year + month - 1."""
    declared: str = ""
    at: str = ""
    """An operator's thresholds."""
    written_off: dict[str, int] = field(default_factory=lambda: {str(unit): 0 for unit in Unit})
    """Unit -> charged at the estimate because nobody settled, and not corrected since."""
    accounts: dict[str, Account] = field(default_factory=lambda: {name: Account() for name in ACCOUNTS})

    def account(self, unit: Unit | str = Unit.USD, window: Window | str = Window.TOTAL) -> Account:
        return self.accounts[f"{unit}.{window}"]

    @classmethod
    def parse(cls, level: str, fields: Mapping[str, str]) -> "Level":
        """Read a level's hash; what is not there is zero."""
        made = cls(level, int(fields.get("day") or 0), int(fields.get("month") or 0))
        made.declared, made.at = fields.get("declared", ""), fields.get("set.at", "")
        for unit in made.written_off:
            made.written_off[unit] = int(fields.get(f"{unit}.x") or 0)
        declared = said(made.declared)
        for name, account in made.accounts.items():
            account.spent, account.reserved = int(fields.get(f"{name}.s") or 0), int(fields.get(f"{name}.r") or 0)
            account.told, account.refusal_told = int(fields.get(f"{name}.n") or 0), fields.get(f"{name}.b") == "1"
            account.set = fields.get(f"set.{name}", "")
            account.limit = limit_of(account.set, declared.get(name, ""))
        return made


def said(declared: str) -> dict[str, str]:
    """Read "usd.day=5000000 at=50,80"."""
    return dict(part.split("=", 1) for part in declared.split())


def limit_of(set_: str, declared: str) -> int | None:
    """Give the limit that holds: an operator's, else the declared one."""
    text = set_ or declared
    return int(text) if text.isdigit() else None


@dataclass(frozen=True, slots=True)
class Book:
    """One tenant's books at one moment."""

    open: int
    """Reservations under way."""
    next_expiry: int | None
    day: int
    month: int
    levels: dict[str, Level]
    """Those asked for that are known."""

    @property
    def committed(self) -> int:
        """Micro-dollars settled and reserved, ever: the invariant that calls never lower by themselves."""
        tenant = self.levels.get("tenant")
        return tenant.account().committed if tenant else 0

    @classmethod
    def parse(cls, reply: Sequence[Any]) -> "Book":
        count, first, day, month, *shown = reply
        levels = {flat[0]: Level.parse(flat[0], pairs(flat[1:])) for flat in shown if len(flat) > 1}
        return cls(int(count), int(first) if first else None, int(day), int(month), levels)


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep of a tenant's books did."""

    written_off: int
    open: int
    next_expiry: int | None


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """One entry of a tenant's log: threshold, refused, written_off, corrected, set; all prefixed "budget_"."""

    id: str
    type: str
    at: int
    fields: dict[str, str]

    @classmethod
    def parse(cls, entry: Sequence[Any]) -> "BudgetEvent":
        fields = pairs(entry[1])
        return cls(entry[0], fields.pop("type"), int(fields.pop("at")), fields)
