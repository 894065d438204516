"""The budget scripts, one function each, on one tenant's books in memory.

    reserve ──▶ open ──settle──▶ settled                  open ──release──▶ released
                 └── expires ──▶ off ──settle──▶ corrected

Committed = spent + reserved, at each level and in each window; no limit is ever below it but by what calls cost
beyond their estimates.  An expired reservation is charged at its estimate: the call may have been made.

Twin: ``lua/_budget.lua`` and ``lua/budget_*.lua``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from techrevati.store.budgets.records import Level, limit_of, said
from techrevati.store.calls import Call
from techrevati.store.scripts import PROTOCOL
from techrevati.store.twin import clock
from techrevati.store.twin.unit import Refused, Reply

DAY_US = 86_400_000_000
SWEPT = 16
FORGET_FROM = 1000
UNITS, WINDOWS = ("usd", "tokens"), ("total", "day", "month")


@dataclass(slots=True)
class Held:
    """A reservation: what it counts for, at which levels, in which windows."""

    id: str
    state: str
    cost: dict[str, int]
    expires: int
    day: int
    month: int
    levels: list[str]
    paid: str = ""
    """What it was charged with in the end: "<usd> <tokens>"."""


@dataclass(slots=True)
class Entry:
    """One line of the log."""

    type: str
    at: int
    fields: dict[str, str]


@dataclass(slots=True)
class Books:
    """All that is under one tenant's hash tag."""

    clock: int = 0
    minimum: int | None = None
    looks: int = 0
    """Sweeps that found nothing open."""
    levels: dict[str, Level] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    log: list[Entry] = field(default_factory=list)
    projects: dict[str, int] = field(default_factory=dict)

    @property
    def open(self) -> list[Held]:
        """Open reservations, the first to expire first."""
        return sorted((h for h in self.held.values() if h.state == "open"), key=lambda h: (h.expires, h.id))


def calendar(now_us: int) -> tuple[int, int]:
    """Give the UTC day since the epoch and the month since year 0.

    Source: H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    """
    day = now_us // DAY_US
    era, doe = divmod(day + 719_468, 146_097)
    yoe = (doe - doe // 1460 + doe // 36_524 - doe // 146_096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    return day, (yoe + era * 400) * 12 + (5 * doy + 2) // 153 + 2


class Unit:
    """One script's view of the books."""

    def __init__(self, books: Books, now: int) -> None:
        self.books, self.now = books, now
        self.day, self.month = calendar(now)

    def level(self, level_id: str, *, make: bool = False) -> Level | None:
        level = self.books.levels.get(level_id)
        if level is None:
            if not make:
                return None
            level = self.books.levels[level_id] = Level(level_id)
        self.roll(level)
        return level

    def roll(self, level: Level) -> None:
        """A window that is over begins at nothing."""
        used = False
        for window, today in (("day", self.day), ("month", self.month)):
            if getattr(level, window) != today:
                for unit in UNITS:
                    account = level.account(unit, window)
                    account.spent, account.reserved, account.told, account.refusal_told = 0, 0, 0, False
                setattr(level, window, today)
                used = True
        if used and level.id.startswith("project:"):
            self.books.projects[level.id] = self.now

    def window(self, level: Level, account: str) -> str:
        name = account.partition(".")[2]
        return "" if name == "total" else str(getattr(level, name))

    def say(self, kind: str, **fields: str | int) -> None:
        self.books.log.append(Entry(kind, self.now, {name: str(value) for name, value in fields.items()}))

    def tell(self, level: Level, name: str) -> None:
        """Say each threshold once in a window."""
        account = level.accounts[name]
        if account.limit is None:
            return
        at = level.at or said(level.declared).get("at") or "50,80,100"
        for percent in map(int, filter(str.isdigit, at.split(","))):
            if percent > account.told and account.spent >= account.limit * percent / 100:
                account.told = percent
                self.say(
                    "budget_threshold",
                    level=level.id,
                    account=name,
                    percent=percent,
                    limit=account.limit,
                    spent=account.spent,
                    reserved=account.reserved,
                    window=self.window(level, name),
                )

    def move(self, level: Level, unit: str, reserved: int, spent: int, day: int, month: int) -> None:
        """Count a cost in the windows its reservation was made in, if they are not over."""
        made = {"total": True, "day": day == level.day, "month": month == level.month}
        for window in WINDOWS:
            if made[window]:
                account = level.account(unit, window)
                account.reserved = max(0, account.reserved + reserved)
                account.spent = max(0, account.spent + spent)
                if spent > 0:
                    self.tell(level, f"{unit}.{window}")

    def close(self, held: Held, state: str, actual: dict[str, int] | None) -> None:
        """Replace what a reservation counts for; None charges the estimate."""
        off = held.state == "off"
        for level_id in held.levels:
            level = self.level(level_id)
            if level is None:
                continue
            for unit in UNITS:
                estimate = held.cost[unit]
                if actual is None:
                    self.move(level, unit, -estimate, estimate, held.day, held.month)
                    level.written_off[unit] += estimate
                elif off:
                    self.move(level, unit, 0, actual[unit] - estimate, held.day, held.month)
                    level.written_off[unit] = max(0, level.written_off[unit] - estimate)
                else:
                    self.move(level, unit, -estimate, actual[unit], held.day, held.month)
        held.state = state
        cost = held.cost if actual is None else actual
        held.paid = f"{cost['usd']} {cost['tokens']}"
        if actual is None or off:
            self.say(
                "budget_written_off" if actual is None else "budget_corrected",
                call=held.id,
                level=held.levels[0],
                usd=cost["usd"],
                tokens=cost["tokens"],
                estimate=f"{held.cost['usd']} {held.cost['tokens']}",
            )

    def expire(self, most: int = SWEPT) -> int:
        """Write off what is over: a few with each call."""
        over = [held for held in self.books.open if held.expires <= self.now][:most]
        for held in over:
            self.close(held, "off", None)
        return len(over)


def speak(books: Books, call: Call[Any], now: int) -> Reply:
    """Say to the twin what a client says to Redis."""
    try:
        clock.check(books.minimum, PROTOCOL)
        time, books.clock = clock.read(books.clock, now)
        return SCRIPTS[call.script](Unit(books, time), *map(str, call.args))
    except Refused as refused:
        return refused.reply


def forget(books: Books, now: int) -> None:
    """Drop what Redis drops by TTL: for a process that keeps books of its own."""
    if len(books.held) > FORGET_FROM:
        ended = [held.id for held in books.held.values() if held.state != "open" and held.expires < now]
        for call_id in ended:
            del books.held[call_id]
    if len(books.levels) > FORGET_FROM:
        day, _month = calendar(now)
        for level in [level for level in books.levels.values() if level.day < day and level.id.startswith("run:")]:
            del books.levels[level.id]
    del books.log[:-FORGET_FROM]


def budget_reserve(u: Unit, call_id: str, ttl: str, usd: str, tokens: str, *named: str) -> Reply:
    """Set aside what a call may cost at every level, or at none."""
    if known := u.books.held.get(call_id):
        return [0, [], known.expires, known.state, u.books.looks]
    u.expire()
    levels = list[Level]()
    for level_id, declared in zip(named[::2], named[1::2], strict=True):
        level = u.level(level_id, make=True)
        assert level is not None
        level.declared = declared
        limits = said(declared)
        for name, account in level.accounts.items():
            account.limit = limit_of(account.set, limits.get(name, ""))
        levels.append(level)
    asked = {"usd": int(usd), "tokens": int(tokens)}
    for level in levels:
        for name, account in level.accounts.items():
            more = asked[name.partition(".")[0]]
            if account.limit is not None and more > 0 and account.committed + more > account.limit:
                window = u.window(level, name)
                if not account.refusal_told:
                    account.refusal_told = True
                    u.say(
                        "budget_refused",
                        level=level.id,
                        account=name,
                        call=call_id,
                        asked=more,
                        limit=account.limit,
                        spent=account.spent,
                        reserved=account.reserved,
                        window=window,
                    )
                raise Refused(-20, level.id, name, account.limit, account.spent, account.reserved, window)
    for level in levels:
        for unit in UNITS:
            u.move(level, unit, asked[unit], 0, u.day, u.month)
    held = Held(call_id, "open", asked, u.now + int(ttl), u.day, u.month, [level.id for level in levels])
    u.books.held[call_id] = held
    return [1, [], held.expires, "open", u.books.looks]


def budget_settle(u: Unit, call_id: str, usd: str, tokens: str, how: str) -> Reply:
    """Put what a call did cost in the place of what was reserved for it, once."""
    held = u.books.held.get(call_id)
    if held is None:
        u.expire()
        return [-21, []]
    if held.state not in ("open", "off"):
        return [0, [], held.state]
    state = "corrected" if held.state == "off" else "released" if how == "release" else "settled"
    u.close(held, state, {"usd": int(usd), "tokens": int(tokens)})
    u.expire()
    return [1, [], state]


def budget_set(u: Unit, level_id: str, name: str, value: str) -> Reply:
    """Set an operator's limit, or thresholds."""
    level = u.level(level_id, make=True)
    assert level is not None
    if (level.at if name == "at" else level.accounts[name].set) == value:
        return [0, []]
    if name == "at":
        level.at = value
    else:
        account = level.accounts[name]
        account.set = value
        account.limit = limit_of(value, said(level.declared).get(name, ""))
    for other, account in level.accounts.items():
        if name in (other, "at"):
            account.told, account.refusal_told = 0, False
            u.tell(level, other)
    u.say("budget_set", level=level.id, account=name, value=value)
    u.expire()
    return [1, []]


def budget_look(u: Unit, *levels: str) -> Reply:
    """Show what stands in the books, after writing off what expired."""
    u.expire()
    shown = [level for level_id in levels if (level := u.level(level_id)) is not None]
    left = u.books.open
    return [1, [], len(left), left[0].expires if left else "", u.day, u.month, *shown]


def budget_sweep(u: Unit) -> Reply:
    """Write off what expired while the tenant did not call."""
    done, left = u.expire(64), u.books.open
    if not left:
        u.books.looks += 1
    return [1, [], done, len(left), left[0].expires if left else ""]


SCRIPTS: dict[str, Callable[..., Reply]] = {
    "budget_reserve": budget_reserve,
    "budget_settle": budget_settle,
    "budget_set": budget_set,
    "budget_look": budget_look,
    "budget_sweep": budget_sweep,
}
