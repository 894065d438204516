"""What a budget is: limits by level, unit and window, and what a call may cost.

    Limit(5 USD a day) ─┐
    Limit(1M tokens) ───┴─▶ Limits(run=…, thread=…, project=…, tenant=…) ─▶ "usd.day=5000000 tokens.total=1000000"

Money is integer micro-dollars; windows are UTC days and months of the server's clock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from enum import StrEnum
from typing import Self

from techrevati.store.budgets.errors import BadBudget
from techrevati.store.budgets.names import check_name

AMOUNT_MAX = 10**13  # 10 million USD; a hundredfold is still exact in Lua
THRESHOLDS = (50, 80, 100)


class Unit(StrEnum):
    USD = "usd"
    TOKENS = "tokens"


class Window(StrEnum):
    TOTAL = "total"
    DAY = "day"
    MONTH = "month"


def usd(amount: Decimal | int | float | str) -> int:
    """Give dollars as whole micro-dollars, rounded up.

    Raises:
        BadBudget: it is not a finite number of dollars, negative, or over 10 million.
    """
    try:
        exact = Decimal(str(amount)) * 1_000_000
        micros = int(exact.to_integral_value(ROUND_CEILING))
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise BadBudget("amount", str(amount), "dollars as a finite number, e.g. '2.50'") from error
    return check_amount("amount", micros)


def check_amount(what: str, amount: int) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= AMOUNT_MAX:
        raise BadBudget(what, repr(amount), f"a whole number from 0 to {AMOUNT_MAX:,} (micro-dollars or tokens)")
    return amount


def check_window(name: str) -> Window:
    try:
        return Window(name)
    except ValueError:
        raise BadBudget("window", repr(name), f"one of {', '.join(Window)}") from None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call may cost, or did: micro-dollars and tokens."""

    usd: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        check_amount("cost in micro-dollars", self.usd)
        check_amount("cost in tokens", self.tokens)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` in each window."""

    amount: int
    unit: Unit = Unit.USD
    window: Window = Window.TOTAL

    def __post_init__(self) -> None:
        if self.unit not in list(Unit):
            raise BadBudget("unit", repr(self.unit), f"one of {', '.join(Unit)}")
        check_window(self.window)
        if check_amount("limit", self.amount) == 0:
            raise BadBudget("limit", "0", "more than zero; to stop a tenant's spending set it to 1")

    @classmethod
    def usd(cls, amount: Decimal | int | float | str, per: str = "total") -> Self:
        """A limit in dollars: ``Limit.usd("2.50", per="day")``."""
        return cls(usd(amount), Unit.USD, check_window(per))

    @classmethod
    def tokens(cls, amount: int, per: str = "total") -> Self:
        return cls(amount, Unit.TOKENS, check_window(per))

    @property
    def account(self) -> str:
        return f"{self.unit}.{self.window}"


def check_thresholds(percents: Sequence[int]) -> tuple[int, ...]:
    given = tuple(percents)
    if any(isinstance(p, bool) or not isinstance(p, int) or not 1 <= p <= 100 for p in given):
        raise BadBudget("thresholds", repr(given), "whole percents from 1 to 100")
    return tuple(sorted(set(given)))


@dataclass(frozen=True, slots=True)
class Limits:
    """What the code declares for every run, thread, project and tenant; an operator's setting wins."""

    run: tuple[Limit, ...] = ()
    thread: tuple[Limit, ...] = ()
    project: tuple[Limit, ...] = ()
    tenant: tuple[Limit, ...] = ()
    thresholds: tuple[int, ...] = THRESHOLDS

    def __post_init__(self) -> None:
        check_thresholds(self.thresholds)
        for level in ("run", "thread", "project", "tenant"):
            accounts = [limit.account for limit in getattr(self, level)]
            if len(accounts) != len(set(accounts)):
                raise BadBudget(f"limits of a {level}", ", ".join(accounts), "one limit per unit and window")

    def declared(self, kind: str) -> str:
        """Give the limits of a level in a script's words; "" for none."""
        limits: tuple[Limit, ...] = getattr(self, kind)
        if not limits:
            return ""
        said = [f"{limit.account}={limit.amount}" for limit in sorted(limits, key=lambda limit: limit.account)]
        return " ".join([*said, f"at={percents(check_thresholds(self.thresholds))}"])


def percents(thresholds: Sequence[int]) -> str:
    return ",".join(map(str, thresholds)) or "0"  # 0 is never crossed


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose money it is: a tenant's, and which project, thread and run of it spend it."""

    tenant: str
    project: str | None = None
    thread: str | None = None
    run: str | None = None

    def __post_init__(self) -> None:
        for kind in ("project", "thread", "run"):
            name = getattr(self, kind)
            if name is not None:
                check_name(kind, name)

    def levels(self) -> Iterator[tuple[str, str]]:
        """Give (kind, level id), the narrowest first."""
        for kind in ("run", "thread", "project"):
            if (name := getattr(self, kind)) is not None:
                yield kind, f"{kind}:{name}"
        yield "tenant", "tenant"


def check_level(level: str) -> str:
    """Refuse a level id that is neither "tenant" nor "<project|thread|run>:<name>"."""
    kind, colon, name = level.partition(":")
    if level != "tenant" and (kind not in ("project", "thread", "run") or not colon):
        raise BadBudget("level", repr(level), "'tenant', or 'project:', 'thread:' or 'run:' and a name")
    if level != "tenant":
        check_name(kind, name)
    return level
