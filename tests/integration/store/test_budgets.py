"""Budgets on a real Redis: refusals that name their level, leases, windows, and a store that goes away."""

import asyncio
import pickle
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import pytest

from techrevati.runtime.usage_tracking import UsageBoundExceededError
from techrevati.store.aio import AsyncStore
from techrevati.store.budgets import (
    AsyncBudget,
    BadBudget,
    Budget,
    BudgetKeys,
    BudgetRefused,
    Cost,
    Limit,
    Limits,
    Reservation,
    ReservationClosed,
    Scope,
    State,
    Unit,
    Window,
    call_id,
    usd,
)
from techrevati.store.budgets.names import expiries_key
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.errors import BadName, StoreUnreachable
from techrevati.store.sync import SyncStore

S = 1_000_000
BEGIN = round(datetime(2026, 3, 31, 23, 0, tzinfo=UTC).timestamp()) * S
SCOPE = Scope("acme", project="site", thread="essay 42", run="r1")
LIMITS = Limits(run=(Limit.usd(1),), project=(Limit.usd(3, per="month"),), tenant=(Limit.usd("2.5", per="day"),))
CENT = 10_000


class Till:
    """A fleet's budgets with a hand on the clock."""

    def __init__(self, url: str, fleet: str, **more: str) -> None:
        self.now = BEGIN
        self.said: list[str] = []
        self.store = SyncStore(url, now_us=lambda: self.now, patience=0.2)
        self.budget = Budget(self.store, fleet, limits=LIMITS, report=self.hear, **more)
        self.keys = BudgetKeys(fleet, "acme")

    def hear(self, kind: str, fields: Mapping[str, object]) -> None:
        self.said.append(kind)

    def reserve(self, name: str, cents: int, scope: Scope = SCOPE, timeout: float = 30, tokens: int = 0) -> Reservation:
        return self.budget.reserve(scope, name, Cost(cents * CENT, tokens), timeout=timeout)

    def of(self, level: str = "tenant", window: str = "total") -> tuple[int, int]:
        """Spent and reserved, in cents."""
        account = self.budget.look("acme", level).levels[level].account(Unit.USD, window)
        return account.spent // CENT, account.reserved // CENT

    def told(self, kind: str) -> list[dict[str, str]]:
        return [event.fields for event in self.budget.events("acme") if event.type == f"budget_{kind}"]


@pytest.fixture
def till(server: EmbeddedRedis, fleet_name: str) -> Iterator[Till]:
    one = Till(server.url, fleet_name)
    with one.store:
        yield one


# What is reserved and settled.


def test_the_estimate_is_held_at_every_level_and_the_cost_takes_its_place(till: Till) -> None:
    made = till.reserve("c1", 60)
    levels = ("run:r1", "thread:essay 42", "project:site", "tenant")
    assert [till.of(level) for level in levels] == [(0, 60)] * 4
    assert till.budget.settle(made, Cost(45 * CENT, 1200)) is State.SETTLED
    assert [till.of(level, window) for level in levels for window in Window] == [(45, 0)] * 12
    assert till.budget.look("acme").levels["tenant"].account(Unit.TOKENS).spent == 1200
    assert till.budget.look("acme").committed == 45 * CENT
    assert till.budget.projects("acme") == ["project:site"]
    assert till.budget.tenants() == ["acme"]


def test_a_refusal_reserves_nothing_and_names_the_level_that_is_full(till: Till) -> None:
    till.budget.settle(till.reserve("c1", 70), Cost(70 * CENT))
    till.reserve("c2", 20)
    with pytest.raises(BudgetRefused) as refused:
        till.reserve("c3", 11)
    error = refused.value
    assert (error.tenant, error.level, error.account) == ("acme", "run:r1", "usd.total")
    assert (error.limit, error.spent, error.reserved, error.asked) == (S, 70 * CENT, 20 * CENT, 11 * CENT)
    assert isinstance(error, UsageBoundExceededError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "limit $1.000000, spent $0.700000, reserved $0.200000, asked $0.110000" in str(error)
    assert till.of() == (70, 20)
    assert till.reserve("c4", 10).state is State.OPEN


def test_a_wider_level_stops_what_the_narrower_ones_allow(till: Till) -> None:
    for number in range(2):
        till.reserve(f"c{number}", 100, Scope("acme", project="site", run=f"r{number}"))
    with pytest.raises(BudgetRefused) as refused:
        till.reserve("c3", 60, Scope("acme", project="site", run="r3"))
    assert (refused.value.level, refused.value.account) == ("tenant", "usd.day")
    assert till.told("refused")[0]["asked"] == str(60 * CENT)
    with pytest.raises(BudgetRefused):
        till.reserve("c4", 60, Scope("acme", project="site", run="r3"))
    assert len(till.told("refused")) == 1
    assert "run:r3" not in till.budget.look("acme", "run:r3").levels or till.of("run:r3") == (0, 0)


def test_a_release_gives_back_all_and_counts_once(till: Till) -> None:
    made = till.reserve("c1", 60)
    assert [till.budget.release(made) for _ in range(2)] == [State.RELEASED, State.RELEASED]
    assert till.budget.settle(made, Cost(CENT)) is State.RELEASED
    assert till.of() == (0, 0)
    with pytest.raises(ReservationClosed):
        till.reserve("c1", 60)


def test_what_is_said_twice_counts_once(till: Till) -> None:
    made = till.reserve("c1", 60)
    assert till.reserve("c1", 60) == made
    assert till.of() == (0, 60)
    assert [till.budget.settle(made, Cost(50 * CENT)) for _ in range(3)] == [State.SETTLED] * 3
    assert till.of() == (50, 0)


def test_a_call_may_cost_more_than_its_estimate_and_is_counted_in_full(till: Till) -> None:
    till.budget.settle(till.reserve("c1", 60), Cost(170 * CENT))
    assert till.of("run:r1") == (170, 0)
    with pytest.raises(BudgetRefused):
        till.reserve("c2", 1)
    assert till.reserve("free", 0).state is State.OPEN


def test_tokens_have_budgets_of_their_own(till: Till) -> None:
    till.budget.set("acme", "project:site", Limit.tokens(1000, per="day"))
    till.reserve("c1", 1, tokens=900)
    with pytest.raises(BudgetRefused) as refused:
        till.reserve("c2", 1, tokens=101)
    assert (refused.value.account, refused.value.limit, refused.value.reserved) == ("tokens.day", 1000, 900)
    assert "limit 1,000 tokens" in str(refused.value)


# Leases.


def test_an_abandoned_reservation_is_charged_at_its_estimate(till: Till) -> None:
    till.reserve("c1", 60, timeout=30)
    till.now += 44 * S
    assert till.of() == (0, 60)
    till.now += 2 * S
    assert till.of() == (60, 0)
    assert [(event["call"], event["usd"]) for event in till.told("written_off")] == [("c1", str(60 * CENT))]
    assert till.budget.look("acme").levels["tenant"].written_off["usd"] == 60 * CENT
    assert till.budget.look("acme").open == 0


def test_a_late_settlement_corrects_the_charge_once(till: Till) -> None:
    made = till.reserve("c1", 60)
    till.now += 3600 * S - 100
    till.budget.look("acme")
    assert [till.budget.settle(made, Cost(cents * CENT)) for cents in (42, 7)] == [State.CORRECTED] * 2
    assert till.of() == (42, 0)
    assert till.budget.look("acme").levels["tenant"].written_off["usd"] == 0
    assert len(till.told("written_off")) == len(till.told("corrected")) == 1


def test_an_expired_reservation_that_nobody_wrote_off_is_still_settled(till: Till) -> None:
    made = till.reserve("c1", 60)
    till.now += 600 * S
    assert till.budget.settle(made, Cost(CENT)) is State.SETTLED
    assert till.told("written_off") == []


def test_what_expired_together_is_written_off_a_few_with_each_call(till: Till) -> None:
    till.budget.set("acme", "tenant", Limit.usd(1000, per="day"))
    for number in range(40):
        till.reserve(f"c{number}", 1, Scope("acme"))
    till.now += 60 * S
    assert [till.of() for _ in range(3)] == [(16, 24), (32, 8), (40, 0)]


def test_every_key_is_bound_to_go(till: Till) -> None:
    till.budget.settle(till.reserve("c1", 10), Cost(CENT))
    till.reserve("c2", 10)
    till.budget.look("acme")
    till.budget.look("nobody")
    names = [*till.store.redis.scan_iter(match=f"budget:{{{till.keys.fleet}/*"), till.keys.clock]
    assert len(names) > 8
    for name in names:
        assert till.store.redis.ttl(name) > 0, name
    assert till.store.redis.ttl(till.keys.call("c1")) <= 900


# Windows.


def test_a_new_day_begins_at_nothing_and_a_new_month_too(till: Till) -> None:
    till.reserve("late", 100, Scope("acme", project="site", run="r1"), timeout=7200)
    till.budget.settle(till.reserve("c1", 100, Scope("acme", project="site", run="r2")), Cost(100 * CENT))
    assert till.of("tenant", "day") == (100, 100)
    till.now += 3600 * S  # midnight, and the first of April
    assert [till.of("tenant", window) for window in Window] == [(100, 100), (0, 0), (0, 0)]
    late = till.reserve("late", 100)
    assert till.budget.settle(late, Cost(90 * CENT)) is State.SETTLED  # it belongs to the day it was reserved in
    assert [till.of("tenant", window) for window in Window] == [(190, 0), (0, 0), (0, 0)]
    book = till.budget.look("acme")
    assert datetime(1970, 1, 1).toordinal() + book.day == datetime(2026, 4, 1).toordinal()
    assert divmod(book.month, 12) == (2026, 3)


def test_a_clock_that_steps_back_opens_no_window_again(till: Till) -> None:
    till.now += 3600 * S
    till.reserve("c1", 100)
    till.now -= 7200 * S
    assert till.of("tenant", "day") == (0, 100)
    till.reserve("c2", 50, Scope("acme", run="r2"))
    assert till.of("tenant", "day") == (0, 150)


# Thresholds and operators.


def test_each_threshold_is_told_once_in_a_window(till: Till) -> None:
    for number, cents in enumerate((100, 50, 60, 40)):
        till.budget.settle(till.reserve(f"c{number}", 1, Scope("acme")), Cost(cents * CENT))
        till.budget.look("acme")
    day = [event["percent"] for event in till.told("threshold") if event["account"] == "usd.day"]
    assert day == ["50", "80", "100"]
    till.now += 3600 * S
    till.budget.settle(till.reserve("next", 1, Scope("acme")), Cost(130 * CENT))
    assert [event["percent"] for event in till.told("threshold")][3:] == ["50"]
    assert till.told("threshold")[-1]["window"] == str(till.budget.look("acme").day)


def test_an_operators_limit_wins_until_it_is_taken_back(till: Till) -> None:
    assert till.budget.set("acme", "run:r1", Limit.usd(2))
    assert not till.budget.set("acme", "run:r1", Limit.usd(2))
    till.reserve("c1", 150)
    assert till.budget.look("acme", "run:r1").levels["run:r1"].account().left == 50 * CENT
    till.budget.unset("acme", "run:r1", Unit.USD, Window.TOTAL)
    with pytest.raises(BudgetRefused):
        till.reserve("c2", 1)
    till.budget.lift("acme", "run:r1", Unit.USD, Window.TOTAL)
    assert till.reserve("c2", 1).state is State.OPEN
    assert [event["value"] for event in till.told("set")] == ["2000000", "", "-"]


def test_a_limit_set_at_noon_counts_the_morning(till: Till) -> None:
    till.budget.settle(till.reserve("c1", 90), Cost(90 * CENT))
    till.budget.set_thresholds("acme", "thread:essay 42", (25, 90))
    till.budget.set("acme", "thread:essay 42", Limit.usd(1, per="day"))
    assert [event["percent"] for event in till.told("threshold") if event["level"].startswith("thread")] == ["25", "90"]
    with pytest.raises(BudgetRefused) as refused:
        till.reserve("c2", 11, Scope("acme", thread="essay 42"))
    assert refused.value.spent == 90 * CENT


# Refused before anything is written.


@pytest.mark.parametrize("amount", [0, -1, 10**13 + 1, True, 1.5])
def test_a_limit_of_nothing_less_or_too_much_is_refused(amount: int) -> None:
    with pytest.raises(BadBudget):
        Limit(amount)


@pytest.mark.parametrize("dollars", ["nan", "inf", "-1", "a lot", "1e30"])
def test_dollars_that_are_none_are_refused(dollars: str) -> None:
    with pytest.raises(BadBudget):
        usd(dollars)


def test_bad_names_windows_and_levels_are_refused(till: Till) -> None:
    with pytest.raises(BadBudget, match="total, day, month"):
        Limit.usd(1, per="week")
    with pytest.raises(BadBudget):
        Cost(-1)
    with pytest.raises(BadBudget):
        Limits(run=(Limit.usd(1), Limit.usd(2)))
    with pytest.raises(BadBudget):
        Limits(thresholds=(0,))
    for bad in ("", "a{b", "a}b", "a\nb", "ü" * 101, "a\x7f"):
        with pytest.raises(BadName):
            Scope("acme", run=bad)
        with pytest.raises(BadName):
            till.reserve(bad, 1)
    for tenant in ("a b", "a:b", "{a}", ""):
        with pytest.raises(BadName):
            till.reserve("c1", 1, Scope(tenant))
    for level in ("team:x", "run", "run:", "run:a{b", ""):
        with pytest.raises((BadBudget, BadName)):
            till.budget.set("acme", level, Limit.usd(1))
    with pytest.raises(ValueError, match="timeout"):
        till.reserve("c1", 1, timeout=-1)
    assert list(till.store.redis.scan_iter(match=f"*{till.keys.fleet}*")) == []


def test_money_is_rounded_up_to_the_micro_dollar() -> None:
    assert [usd(x) for x in ("0.0000001", 0.1, 1, "2.5")] == [1, 100_000, S, 2_500_000]
    assert call_id("r1", 3, "17.abc", 2) == call_id("r1", 3, 17, 2) == "r1:3:17:2"


# A store in trouble.


def away(redis: EmbeddedRedis, fleet: str, policy: str) -> Till:
    till = Till(redis.url, fleet, on_store_error=policy)
    till.reserve("before", 10)
    redis.stop()
    return till


def test_without_redis_money_is_not_spent(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    till = away(private_redis, fleet_name, "fail_closed")
    with pytest.raises(StoreUnreachable):
        till.reserve("c1", 10)
    private_redis.start()
    till.reserve("c2", 10)
    assert "budget_refused_unreachable" in till.said
    assert till.of() == (0, 20)
    till.store.close()


def test_a_settlement_that_did_not_reach_redis_is_said_again(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    till = Till(private_redis.url, fleet_name)
    made = till.reserve("c1", 50)
    private_redis.stop()
    assert till.budget.settle(made, Cost(20 * CENT)) is State.OWED
    private_redis.start()
    till.reserve("c2", 1)
    assert till.of() == (20, 1)
    till.store.close()


def test_fail_open_admits_what_nobody_counts(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    till = away(private_redis, fleet_name, "fail_open")
    made = till.reserve("c1", 10_000)
    assert made.state is State.UNCHECKED
    assert till.budget.settle(made, Cost(CENT)) is State.UNCHECKED
    assert till.said == ["budget_unchecked"]
    till.store.close()


@pytest.mark.parametrize("policy", ["fail_closed", "fail_open", "local"])
async def test_an_event_loop_does_the_same_without_redis(
    private_redis: EmbeddedRedis, fleet_name: str, policy: str
) -> None:
    said: list[str] = []
    store = AsyncStore(private_redis.url, patience=0.2)
    limits = Limits(run=(Limit.usd(1),))
    budget = AsyncBudget(
        store, fleet_name, limits=limits, on_store_error=policy, report=lambda kind, fields: said.append(kind)
    )
    before = await budget.reserve(SCOPE, "before", Cost(10 * CENT), timeout=30)
    await asyncio.to_thread(private_redis.stop)
    if policy == "fail_closed":
        with pytest.raises(StoreUnreachable):
            await budget.reserve(SCOPE, "c1", Cost(60 * CENT), timeout=30)
    else:
        made = await budget.reserve(SCOPE, "c1", Cost(60 * CENT), timeout=30)
        assert made.is_local == (policy == "local")
        again = budget.reserve(SCOPE, "c2", Cost(60 * CENT), timeout=30)
        if policy == "local":
            with pytest.raises(BudgetRefused):
                await again
        else:
            assert (await again).state is State.UNCHECKED
        await budget.release(made)
    assert await budget.settle(before, Cost(7 * CENT)) is State.OWED
    await asyncio.to_thread(private_redis.start)
    budget._office.fallback._away_until = 0.0
    await budget.reserve(SCOPE, "after", Cost(CENT), timeout=30)
    account = (await budget.look("acme")).levels["tenant"].account()
    assert (account.spent, account.reserved) == (7 * CENT, CENT)
    first = {"fail_closed": "budget_refused_unreachable", "fail_open": "budget_unchecked", "local": "budget_local"}
    assert said[0] == first[policy]
    await store.close()


def test_local_books_hold_the_declared_limits_in_one_process(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    till = away(private_redis, fleet_name, "local")
    made = till.reserve("c1", 80)
    assert made.is_local
    assert till.budget.settle(made, Cost(70 * CENT)) is State.SETTLED
    with pytest.raises(BudgetRefused) as refused:
        till.reserve("c2", 31)
    assert (refused.value.level, refused.value.spent) == ("run:r1", 70 * CENT)
    till.store.close()


def test_books_survive_a_restart_and_a_flushed_script_cache(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    till = Till(private_redis.url, fleet_name)
    made = till.reserve("c1", 60)
    till.store.command("SCRIPT", "FLUSH")
    private_redis.restart()
    till.budget.settle(made, Cost(40 * CENT))
    till.store.command("SCRIPT", "FLUSH")
    assert till.of() == (40, 0)
    till.store.close()


async def test_many_coroutines_cannot_overspend_together(server: EmbeddedRedis, fleet_name: str) -> None:
    store = AsyncStore(server.url)
    budget = AsyncBudget(store, fleet_name, limits=Limits(tenant=(Limit.usd(1),)))

    async def spend(number: int) -> int:
        try:
            made = await budget.reserve(Scope("acme", run=f"r{number}"), f"c{number}", Cost(3 * CENT), timeout=30)
        except BudgetRefused:
            return 0
        await budget.settle(made, Cost(2 * CENT))
        return 1

    admitted = sum(await asyncio.gather(*(spend(number) for number in range(100))))
    book = await budget.look("acme")
    assert book.levels["tenant"].account().spent == admitted * 2 * CENT <= 100 * CENT
    assert book.open == 0
    await budget.set("acme", "tenant", Limit.usd(5))
    assert await budget.unset("acme", "tenant", Unit.USD, Window.TOTAL)
    assert await budget.tenants() == ["acme"]
    assert [event.type for event in await budget.events("acme")][-1] == "budget_set"
    made = await budget.reserve(Scope("acme", run="last"), "last", Cost(1), timeout=1)
    assert await budget.release(made) is State.RELEASED
    await store.close()


# What nobody settles, of a tenant that does not call again.


def due(till: Till) -> dict[str, float]:
    """Give the tenants that will be looked at, with the seconds until then."""
    flat = till.store.command("ZRANGE", expiries_key(till.keys.fleet), 0, -1, "WITHSCORES")
    return {tenant: (float(at) - till.now) / S for tenant, at in zip(flat[::2], flat[1::2], strict=True)}


def swept(till: Till) -> int:
    """Run rounds until one finds nothing; give what they wrote off."""
    found = 0
    while off := till.budget.write_off(now_us=till.now):
        found += off
    return found


def test_what_nobody_settles_is_written_off_although_its_tenant_is_silent(till: Till) -> None:
    for cents in range(24):
        till.reserve(f"c{cents}", 10, Scope("acme", project="site"), timeout=30)
    assert due(till) == {"acme": 45}
    till.now += 44 * S
    assert (swept(till), till.told("written_off")) == (0, [])
    till.now += 2 * S
    assert swept(till) == 24
    assert due(till) == {}
    log = [event.type for event in till.budget.events("acme")]
    assert log.count("budget_written_off") == 24
    # 2.40 of 2.50 a day and of 3 a month: each threshold once.
    told = [(event["level"], event["account"], event["percent"]) for event in till.told("threshold")]
    assert told == [
        ("tenant", "usd.day", "50"),
        ("project:site", "usd.month", "50"),
        ("tenant", "usd.day", "80"),
        ("project:site", "usd.month", "80"),
    ]
    assert swept(till) == 0
    assert till.of() == (240, 0)
    assert len(till.told("threshold")) == 4
    # It is announced again when it calls again.
    till.reserve("again", 1, Scope("acme"), timeout=30)
    assert due(till) == {"acme": 45}


def test_a_call_that_takes_longer_is_looked_at_when_it_may_end(till: Till) -> None:
    till.reserve("long", 10, timeout=3600)
    till.now += 60 * S
    assert swept(till) == 0
    short = till.reserve("short", 20, timeout=10)
    till.reserve("lost", 5, timeout=10)
    till.budget.settle(short, Cost(20 * CENT))
    late = 0.0
    while "acme" in due(till) and late < 4000:
        step = max(0.001, due(till)["acme"])
        late += step
        till.now += round(step * S)
        swept(till)
        if late < 3500:
            assert till.store.command("HGET", till.keys.call("long"), "st") == "open"
    at = {event["call"]: event for event in till.told("written_off")}
    assert set(at) == {"lost", "long"}
    times = [e.at for e in till.budget.events("acme") if e.type == "budget_written_off"]
    assert times[0] <= BEGIN + (60 + 25 + 60) * S, "at the latest a minute after it expired"
    assert times[1] <= BEGIN + (3615 + 60) * S


def test_idle_tenants_cost_a_round_nothing(till: Till) -> None:
    for number in range(200):
        scope = Scope(f"tenant{number}")
        till.budget.settle(till.reserve("c1", 1, scope), Cost(CENT))
    assert len(due(till)) == 200
    till.now += 46 * S
    for _ in range(4):  # 64 tenants a round
        assert till.budget.write_off(now_us=till.now) == 0
    assert due(till) == {}

    def said() -> int:
        info = till.store.command("INFO", "commandstats")
        return sum(int(line.split("calls=")[1].split(",")[0]) for line in info.splitlines() if "calls=" in line)

    before = said()
    rounds = 20
    for _ in range(rounds):
        till.budget.write_off(now_us=till.now)
    assert (said() - before) / rounds <= 3 + 2 * 16, "a look at the head, and a few tenants' books"


@pytest.mark.parametrize("lost", ["the announcement", "the coordinator in mid round"])
def test_a_tenant_that_was_lost_sight_of_is_found_by_the_review(till: Till, lost: str) -> None:
    till.reserve("c1", 10)
    if lost == "the announcement":
        till.store.command("DEL", expiries_key(till.keys.fleet))
        till.now += 46 * S
    else:
        till.now += 46 * S
        rounds = till.budget._office.write_offs.round(till.now)
        asked = next(rounds)
        while not asked.calls:  # it dies with the tenants in its hand
            asked = rounds.send(till.store.commands(asked.commands))
        assert due(till)["acme"] > 86_400
    for _ in range(3):
        till.budget.write_off(now_us=till.now)
    assert till.of() == (10, 0)
    assert len(till.told("written_off")) == 1


def test_a_sweep_makes_no_books(till: Till) -> None:
    till.store.command("ZADD", expiries_key(till.keys.fleet), 1, "nobody")
    assert till.budget.write_off(now_us=till.now) == 0
    assert due(till) == {}
    assert till.store.command("EXISTS", BudgetKeys(till.keys.fleet, "nobody").clock) == 0


async def test_an_event_loop_writes_off_the_same(server: EmbeddedRedis, fleet_name: str) -> None:
    clock = [BEGIN]
    store = AsyncStore(server.url, now_us=lambda: clock[0])
    budget = AsyncBudget(store, fleet_name, limits=LIMITS)
    for number in range(3):
        await budget.reserve(Scope(f"t{number}"), "c1", Cost(CENT), timeout=0)
    clock[0] += 16 * S
    assert await budget.write_off(now_us=clock[0]) == 3
    assert await budget.write_off(now_us=clock[0]) == 0
    assert (await budget.look("t1")).levels["tenant"].account().spent == CENT
    await store.close()
