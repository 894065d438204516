"""What an author says of money: limits per run, thread, project and tenant, and what becomes of it.

fleet.budget(run=0.50, tenant={"day": 100}) ──limits──▶ Limits ──▶ reserved before each call, settled after
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from techrevati.store.budgets import AsyncBudget, BadBudget, Book, Budget, BudgetEvent, Limit, Limits, OnStoreError

Dollars: TypeAlias = float | int | str | Decimal
Spending: TypeAlias = Dollars | Limit | Sequence[Limit] | Mapping[str, Dollars]
"""Dollars in all, dollars by window ({"day": 5, "month": 100, "total": 1000}), or limits as `store.budgets` has them:
`Limit(2_500_000)` micro-dollars, `Limit.tokens(1_000_000, per="day")`."""


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """What a fleet declares of money."""

    limits: Limits
    on_store_error: OnStoreError = OnStoreError.FAIL_CLOSED


def limits_of(spending: Spending | None) -> tuple[Limit, ...]:
    """Read what an author says for one level.

    Raises:
        BadBudget: an amount or a window that means nothing.
    """
    if spending is None:
        return ()
    if isinstance(spending, Limit):
        return (spending,)
    if isinstance(spending, Mapping):
        return tuple(Limit.usd(amount, per=window) for window, amount in spending.items())
    if isinstance(spending, str | int | float | Decimal):
        return (Limit.usd(spending),)
    given = tuple(spending)
    if not all(isinstance(limit, Limit) for limit in given):
        raise BadBudget("limits", repr(given), "dollars, {window: dollars}, Limit(…), or a list of Limit(…)")
    return given


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One account of one level, as an operator sees it; amounts are micro-dollars, or tokens, of the window.

    `account` is the unit and the window: "usd.day".  `written_off` was charged at its estimate, because nobody
    settled it.
    """

    tenant: str
    level: str
    account: str
    limit: int | None
    spent: int
    reserved: int
    written_off: int


def lines_of(tenant: str, book: Book) -> list[BudgetLine]:
    """Give the accounts of a tenant's levels that have a limit, or in all were ever used."""
    found = []
    for level in book.levels.values():
        for name, account in level.accounts.items():
            unit, _, window = name.partition(".")
            off = level.written_off[unit] if window == "total" else 0
            if account.limit is not None or (window == "total" and account.committed):
                line = BudgetLine(tenant, level.id, name, account.limit, account.spent, account.reserved, off)
                found.append(line)
    return found


def read_books(budget: Budget, tenant: str | None, levels: Sequence[str]) -> list[BudgetLine]:
    """Read what stands in the books of one tenant or all: the tenant, its projects last used, and `levels`."""
    found = []
    for name in budget.tenants() if tenant is None else [tenant]:
        found += lines_of(name, budget.look(name, "tenant", *budget.projects(name), *levels))
    return found


async def aread_books(budget: AsyncBudget, tenant: str | None, levels: Sequence[str]) -> list[BudgetLine]:
    """The same for an event loop."""
    found = []
    for name in await budget.tenants() if tenant is None else [tenant]:
        found += lines_of(name, await budget.look(name, "tenant", *await budget.projects(name), *levels))
    return found


def news_for(levels: Sequence[str], run_id: str, events: Sequence[BudgetEvent]) -> list[tuple[str, dict[str, object]]]:
    """Give what a run is to be told of a tenant's log: what its levels passed, and what became of its own calls."""
    told: list[tuple[str, dict[str, object]]] = []
    for event in events:
        fields = event.fields
        if event.type == "budget_threshold" and fields["level"] in levels:
            amounts = {name: int(fields[name]) for name in ("percent", "limit", "spent", "reserved")}
            told.append(("budget.threshold", {"level": fields["level"], "account": fields["account"], **amounts}))
        elif event.type in ("budget_written_off", "budget_corrected") and fields["call"].startswith(f"{run_id}:"):
            amounts = {"cost_micros": int(fields["usd"]), "tokens": int(fields["tokens"])}
            told.append((event.type.replace("_", ".", 1), {"level": fields["level"], **amounts}))
    return told
