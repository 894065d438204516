"""What is said to Redis about money, as values.

See ``lua/budget_*.lua`` for the replies.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

from techrevati.store.budgets.errors import BudgetRefused
from techrevati.store.budgets.names import BudgetKeys, check_name
from techrevati.store.budgets.records import ACCOUNTS, Book, Reservation, State, Swept
from techrevati.store.budgets.spec import Cost, Limits, Scope, check_level
from techrevati.store.calls import Arg, Call
from techrevati.store.errors import ScriptFault, UpgradeRequired
from techrevati.store.scripts import PROTOCOL

LEVELS_SHOWN = 128


def _refuse(script: str, reply: Sequence[Any]) -> NoReturn:
    if int(reply[0]) == -10:
        raise UpgradeRequired(PROTOCOL, int(reply[2]))
    raise ScriptFault(script, repr(reply))


def reserve(
    keys: BudgetKeys, scope: Scope, limits: Limits, call_id: str, estimate: Cost, ttl_us: int
) -> Call[Reservation]:
    """Set money aside at every level of a scope; the answer's state is OPEN unless the call id was used before."""

    def parse(reply: Sequence[Any]) -> Reservation:
        if reply[0] == -20:
            level, account = str(reply[2]), str(reply[3])
            limit, spent, reserved = map(int, reply[4:7])
            asked = estimate.usd if account.startswith("usd") else estimate.tokens
            raise BudgetRefused(keys.tenant, level, account, limit, spent, reserved, asked)
        if reply[0] < 0:
            _refuse("budget_reserve", reply)
        return Reservation(keys.tenant, call_id, estimate, State(reply[3]), int(reply[2]), looks=int(reply[4]))

    args: list[Arg] = [check_name("call id", call_id), ttl_us, estimate.usd, estimate.tokens]
    for kind, level in scope.levels():
        args += (level, limits.declared(kind))
    return Call("budget_reserve", keys, args, parse)


def settle(keys: BudgetKeys, call_id: str, actual: Cost | None) -> Call[State]:
    """Put the cost in the place of the reservation; None: the call was not made."""

    def parse(reply: Sequence[Any]) -> State:
        if reply[0] == -21:
            return State.UNKNOWN
        if reply[0] < 0:
            _refuse("budget_settle", reply)
        return State(reply[2])

    cost, how = (Cost(), "release") if actual is None else (actual, "settle")
    return Call("budget_settle", keys, [call_id, cost.usd, cost.tokens, how], parse)


def set_limit(keys: BudgetKeys, level: str, name: str, value: str) -> Call[bool]:
    """Set what an operator says about an account or "at"; False if it was so."""
    assert name == "at" or name in ACCOUNTS

    def parse(reply: Sequence[Any]) -> bool:
        if reply[0] < 0:
            _refuse("budget_set", reply)
        return bool(reply[0] == 1)

    return Call("budget_set", keys, [check_level(level), name, value], parse)


def look(keys: BudgetKeys, levels: Sequence[str] = ("tenant",)) -> Call[Book]:
    def parse(reply: Sequence[Any]) -> Book:
        if reply[0] < 0:
            _refuse("budget_look", reply)
        return Book.parse(reply[2:])

    return Call("budget_look", keys, [check_level(level) for level in levels[:LEVELS_SHOWN]], parse)


def sweep(keys: BudgetKeys) -> Call[Swept]:
    """Write off what expired; books that are not there have nothing open."""

    def parse(reply: Sequence[Any]) -> Swept:
        if reply[0] < 0:
            _refuse("budget_sweep", reply)
        if reply[0] == 0:
            return Swept(0, 0, None)
        return Swept(int(reply[2]), int(reply[3]), int(reply[4]) if reply[4] else None)

    return Call("budget_sweep", keys, [], parse)
