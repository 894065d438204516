"""The budget scripts and their twin, side by side; and what must hold of the books whatever was said."""

import copy
import itertools
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from techrevati.store.budgets import BudgetKeys, Cost, Level, Limit, Limits, Scope, Unit, Window, calls
from techrevati.store.budgets.records import ACCOUNTS
from techrevati.store.calls import Call
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.records import pairs
from techrevati.store.sync import SyncStore
from techrevati.store.twin import budgets as twin
from techrevati.store.twin.budgets import Books, Entry, Held, calendar, speak
from tests.property.store.conftest import profile
from tests.property.store.worlds import differences

S = 1_000_000
BEGIN = round(datetime(2026, 1, 30, 23, 59, tzinfo=UTC).timestamp()) * S
KEYS = BudgetKeys("twins", "acme")
LEVELS = ("tenant", "project:p1", "project:p2", "thread:t 1", "run:r1", "run:r2")
amounts = st.sampled_from((0, 1, 400, 1_000, 2_500))


def picture(store: SyncStore) -> Books:
    """Read a tenant's books from Redis."""
    book = pairs(store.command("HGETALL", KEYS.clock))
    books = Books(int(book.get("us") or 0), None, int(book.get("looks") or 0))
    for name in store.redis.scan_iter(match=f"{KEYS.clock}:*", count=1000):
        kind, _, rest = name.removeprefix(f"{KEYS.clock}:").partition(":")
        if kind == "level":
            books.levels[rest] = Level.parse(rest, pairs(store.command("HGETALL", name)))
        elif kind == "call":
            flat = pairs(store.command("HGETALL", name))
            cost = {"usd": int(flat["usd"]), "tokens": int(flat["tokens"])}
            day, month, levels = int(flat["day"]), int(flat["month"]), flat["levels"].split("\n")
            books.held[rest] = Held(rest, flat["st"], cost, int(flat["exp"]), day, month, levels, flat.get("paid", ""))
    opened = pairs(store.command("ZRANGE", KEYS.open, 0, -1, "WITHSCORES"))
    assert {call_id: int(score) for call_id, score in opened.items()} == {h.id: h.expires for h in books.open}
    books.projects = {
        p: int(at) for p, at in pairs(store.command("ZRANGE", KEYS.projects, 0, -1, "WITHSCORES")).items()
    }
    for number, (entry_id, flat) in enumerate(store.command("XRANGE", KEYS.log, "-", "+"), 1):
        assert entry_id == f"{number}-0"
        fields = pairs(flat)
        books.log.append(Entry(fields.pop("type"), int(fields.pop("at")), fields))
    return books


def normal(script: str, reply: Any) -> Any:
    """Give a reply without what does not matter: int or its digits, the order of a hash."""
    if script == "budget_look" and reply[0] == 1:
        shown = [Level.parse(x[0], pairs(x[1:])) if isinstance(x, list) else x for x in reply[6:]]
        known = [level for level in shown if level != Level(level.id)]
        return [str(item) for item in reply[:1] + reply[2:6]] + known
    return [str(item) for item in reply]


class BothBooks(RuleBasedStateMachine):
    """One tenant's books on Redis, and the same in memory."""

    def __init__(self, store: SyncStore, clock: list[int]) -> None:
        super().__init__()
        self.store, self.clock = store, clock
        self.now = BEGIN
        store.redis.flushall()
        self.twin = Books()
        self.ids = itertools.count(1)
        self.calls: list[str] = []
        self.sent: list[Call[Any]] = []

    def say(self, call: Call[Any], *, again: bool = False) -> Any:
        self.clock[0] = self.now
        theirs = self.store.run(Call(call.script, call.keys, call.args, lambda reply: list(reply)))
        mine = speak(self.twin, call, self.now)
        assert normal(call.script, theirs) == normal(call.script, mine), f"{call.script}{tuple(call.args)}"
        real = picture(self.store)
        assert real == self.twin, "\n".join(differences(real, self.twin, "redis", "twin"))
        if not again:
            self.sent.append(call)
        return mine

    @initialize(
        run=st.none() | st.just(1_500),
        project=st.none() | st.just(3_000),
        day=st.none() | st.sampled_from((2_000, 4_000)),
        tokens=st.none() | st.just(5_000),
        thresholds=st.sampled_from(((), (50, 80, 100), (100,))),
    )
    def declare(
        self, run: int | None, project: int | None, day: int | None, tokens: int | None, thresholds: Any
    ) -> None:
        tenant = [Limit(day, window=Window.DAY)] if day else []
        tenant += [Limit(tokens, Unit.TOKENS, Window.MONTH)] if tokens else []
        self.limits = Limits(
            run=(Limit(run),) if run else (),
            project=(Limit(project, window=Window.MONTH),) if project else (),
            tenant=tuple(tenant),
            thresholds=thresholds,
        )

    @rule(
        usd=amounts,
        tokens=amounts,
        ttl=st.sampled_from((1, 30 * S, 3600 * S)),
        project=st.sampled_from((None, "p1", "p2")),
        thread=st.sampled_from((None, "t 1")),
        run=st.sampled_from((None, "r1", "r2")),
    )
    def reserve(self, usd: int, tokens: int, ttl: int, **names: Any) -> None:
        name = f"call{next(self.ids)}"
        before = copy.deepcopy(self.twin)
        reply = self.say(calls.reserve(KEYS, Scope("acme", **names), self.limits, name, Cost(usd, tokens), ttl))
        if reply[0] == 1:
            self.calls.append(name)
            for level in self.twin.held[name].levels:
                for account, kept in self.twin.levels[level].accounts.items():
                    asked = usd if account.startswith("usd") else tokens
                    assert kept.limit is None or not asked or kept.committed <= kept.limit
        else:
            assert sum_of(before) == sum_of(self.twin)

    @precondition(lambda self: self.calls)
    @rule(n=st.integers(0, 20), usd=amounts, tokens=amounts, made=st.booleans())
    def settle(self, n: int, usd: int, tokens: int, made: bool) -> None:
        name = self.calls[-1 - n % len(self.calls)]
        self.say(calls.settle(KEYS, name, Cost(usd, tokens) if made else None))

    @rule()
    def settle_what_nobody_knows(self) -> None:
        assert self.say(calls.settle(KEYS, "nobody", Cost(5)))[0] == -21

    @rule(
        level=st.sampled_from(LEVELS),
        account=st.sampled_from((*ACCOUNTS, "at")),
        value=st.sampled_from(("", "-", "700", "3000")),
    )
    def operate(self, level: str, account: str, value: str) -> None:
        self.say(
            calls.set_limit(
                KEYS, level, account, {"700": "70", "3000": "30,90"}.get(value, "") if account == "at" else value
            )
        )

    @rule(levels=st.lists(st.sampled_from(LEVELS), max_size=3))
    def look(self, levels: list[str]) -> None:
        self.say(calls.look(KEYS, levels))

    @precondition(lambda self: self.sent)  # a tenant without books is not swept: `looks` would make them
    @rule()
    def sweep(self) -> None:
        """Nobody calls: a coordinator writes off what expired, and says when to come again."""
        over = [held for held in self.twin.open if held.expires <= max(self.now, self.twin.clock)]
        reply = self.say(calls.sweep(KEYS))
        assert reply[2] == min(len(over), 64)
        assert not [held for held in self.twin.open if held.expires <= self.now][: 64 - reply[2]]

    @rule(seconds=st.sampled_from((0.001, 0.02, 5.0, 31.0, 3700.0, 86_400.0, 33 * 86_400.0, -30.0)))
    def pass_time(self, seconds: float) -> None:
        """Time goes on, over midnights and months; after a failover the server's clock may step back."""
        self.now += round(seconds * S)

    @precondition(lambda self: self.sent)
    @rule(n=st.integers(0, 20))
    def send_again(self, n: int) -> None:
        """A reply was lost: nothing that was counted is counted twice."""
        call = self.sent[-1 - n % len(self.sent)]
        held = self.twin.held.get(str(call.args[0])) if call.args else None
        before = copy.deepcopy(self.twin)
        self.say(call, again=True)
        if held is None and call.script == "budget_reserve" and call.args[0] in self.twin.held:
            self.calls.append(str(call.args[0]))  # it was refused, and fits now
        elif held is not None and (
            call.script == "budget_reserve" or before.held[held.id].state not in ("open", "off")
        ):
            assert before.levels == self.twin.levels

    @invariant()
    def reserved_is_what_is_open(self) -> None:
        for level in self.twin.levels.values():
            for unit in ("usd", "tokens"):
                held = [h.cost[unit] for h in self.twin.open if level.id in h.levels]
                assert level.account(unit).reserved == sum(held)

    @invariant()
    def thresholds_are_told_once_in_a_window(self) -> None:
        told = list[tuple[str, ...]]()
        for entry in self.twin.log:
            if entry.type == "budget_set":  # another limit is told about anew
                told = [one for one in told if one[0] != entry.fields["level"]]
            if entry.type == "budget_threshold":
                told.append(tuple(entry.fields[name] for name in ("level", "account", "window", "percent")))
        assert len(told) == len(set(told))


def sum_of(books: Books) -> dict[str, int]:
    return {level.id: level.account().committed for level in books.levels.values() if level.account().committed}


def test_budget_scripts_and_twin_say_and_do_the_same(server: EmbeddedRedis) -> None:
    clock = [BEGIN]
    with SyncStore(server.url, now_us=lambda: clock[0]) as store:
        run_state_machine_as_test(lambda: BothBooks(store, clock), settings=profile())  # type: ignore[arg-type]


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)))
def test_days_and_months_are_those_of_the_calendar(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    us = int(moment.timestamp()) * S
    day, month = calendar(us)
    assert day == (moment.date() - datetime(1970, 1, 1).date()).days
    assert month == 12 * moment.year + moment.month - 1
    assert twin.DAY_US == 86_400 * S
