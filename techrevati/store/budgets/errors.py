"""What a budget refuses, and why."""

from techrevati.runtime.usage_tracking import UsageBoundExceededError
from techrevati.store.errors import StoreError


class BadBudget(StoreError, ValueError):
    """A limit, amount, window or threshold that means nothing."""

    def __init__(self, what: str, given: str, rule: str) -> None:
        super().__init__(what, given, rule)
        self.what, self.given, self.rule = what, given, rule

    def __str__(self) -> str:
        return f"{self.what} {self.given} is refused: use {self.rule}"


def _shown(account: str, amount: int) -> str:
    return f"${amount / 1e6:,.6f}" if account.startswith("usd") else f"{amount:,} tokens"


class BudgetRefused(StoreError, UsageBoundExceededError):
    """The estimate does not fit under a limit; nothing was reserved at any level.

    `account` is the unit and the window ("usd.day"); amounts are micro-dollars or tokens of that window.
    """

    def __init__(
        self, tenant: str, level: str, account: str, limit: int, spent: int, reserved: int, asked: int
    ) -> None:
        super().__init__(tenant, level, account, limit, spent, reserved, asked)
        self.tenant, self.level, self.account = tenant, level, account
        self.limit, self.spent, self.reserved, self.asked = limit, spent, reserved, asked

    def __str__(self) -> str:
        unit, _, window = self.account.partition(".")
        what = {"total": f"{unit} budget", "day": f"{unit} budget per day", "month": f"{unit} budget per month"}
        shown = [_shown(self.account, amount) for amount in (self.limit, self.spent, self.reserved, self.asked)]
        return (
            f"{what[window]} of {self.level} (tenant {self.tenant!r}): limit {shown[0]}, spent {shown[1]}, "
            f"reserved {shown[2]}, asked {shown[3]}; fix: raise the limit, lower the estimate, "
            f"or wait for {'calls in flight' if window == 'total' else f'the next {window} (UTC)'}"
        )


class ReservationClosed(StoreError):
    """The call id was used before, by a call that has ended."""

    def __init__(self, call_id: str, state: str) -> None:
        super().__init__(call_id, state)
        self.call_id, self.state = call_id, state

    def __str__(self) -> str:
        return f"the reservation of call {self.call_id!r} is {self.state} already; fix: give each call an id of its own"
