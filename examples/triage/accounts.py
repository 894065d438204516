"""What billing knows: accounts with their invoices, and what is odd about them.

invoices ──▶ twice the same on one day │ dearer than the one before
"""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from techrevati.agent.tools import ToolError

ACCOUNTS = Path(__file__).parent / "records" / "accounts.json"
Invoice = dict[str, str]


class Accounts:
    """The accounts of a JSON file."""

    def __init__(self, path: Path = ACCOUNTS) -> None:
        self._accounts: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))

    def invoices(self, account: str) -> list[Invoice]:
        """Give an account's invoices, the oldest first.

        Raises:
            ToolError: there is no such account.
        """
        if account not in self._accounts:
            raise ToolError(f"there is no account {account!r}", code="not_found")
        return sorted(self._accounts[account]["invoices"], key=lambda invoice: (invoice["date"], invoice["id"]))


def account_in(text: str) -> str | None:
    """Find an account's number in a text."""
    found = re.search(r"\bA-\d{4}\b", text)
    return found[0] if found else None


def oddities(invoices: Sequence[Invoice]) -> list[str]:
    """Say what a customer may rightly ask about: double charges, and prices that rose."""
    found = []
    for before, after in pairwise(invoices):
        if _same(before, after):
            found.append(
                f"{after['id']} charges {after['item']} a second time: {after['amount']} on {after['date']}, "
                f"as {before['id']} did. {after['amount']} is to be refunded."
            )
        elif Decimal(after["amount"]) > Decimal(before["amount"]):
            more = Decimal(after["amount"]) - Decimal(before["amount"])
            found.append(f"{after['id']} ({after['item']}) is {more} more than {before['id']} ({before['item']}).")
    return found


def _same(one: Invoice, other: Invoice) -> bool:
    return all(one[key] == other[key] for key in ("date", "amount", "item"))
