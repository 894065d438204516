"""Announcing tenants and writing off what they leave: whatever the order, nobody with money set aside is forgotten.

The review, which would find them all the same, has nothing to look at here.
"""

import contextlib
import itertools

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from techrevati.store.budgets import BudgetKeys, Cost, Limits, Reservation, Scope, calls
from techrevati.store.budgets.names import expiries_key
from techrevati.store.budgets.write_offs import AGAIN, TAKEN, Announcements, Asked, Steps, WriteOffs
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.records import pairs
from techrevati.store.sync import SyncStore
from tests.property.store.conftest import profile

S = 1_000_000
FLEET = "offs"
TENANTS = ("a", "b")


class Offices(RuleBasedStateMachine):
    """Processes that reserve, each step of theirs on its own, and coordinators in the midst of their rounds."""

    def __init__(self, store: SyncStore, clock: list[int]) -> None:
        super().__init__()
        self.store, self.clock = store, clock
        clock[0] = 1_700_000_000 * S
        store.redis.flushall()
        self.ids = itertools.count(1)
        self.processes = [Announcements(FLEET) for _ in range(2)]
        self.unsaid: list[tuple[int, Reservation, int]] = []
        self.made: list[Reservation] = []
        self.rounds: list[tuple[Steps, Asked]] = []

    @rule(process=st.integers(0, 1), tenant=st.sampled_from(TENANTS), ttl=st.sampled_from((15, 75, 3600)))
    def reserve(self, process: int, tenant: str, ttl: int) -> None:
        keys, name = BudgetKeys(FLEET, tenant), f"c{next(self.ids)}"
        made = self.store.run(calls.reserve(keys, Scope(tenant), Limits(), name, Cost(1), ttl * S))
        self.made.append(made)
        self.unsaid.append((process, made, ttl * S))

    @precondition(lambda self: self.unsaid)
    @rule(n=st.integers(0, 5))
    def announce(self, n: int) -> None:
        process, made, ttl_us = self.unsaid.pop(n % len(self.unsaid))
        for command in self.processes[process].due(made, ttl_us):
            if command[0] == "ZADD":
                self.store.command(*command)
        self.processes[process].said(made)

    @precondition(lambda self: self.made)
    @rule(n=st.integers(0, 9))
    def settle(self, n: int) -> None:
        made = self.made.pop(n % len(self.made))
        self.store.run(calls.settle(BudgetKeys(FLEET, made.tenant), made.call_id, Cost(1)))

    @rule(process=st.integers(0, 1), tenant=st.sampled_from(TENANTS), settled=st.booleans())
    def call(self, process: int, tenant: str, settled: bool) -> None:
        """All of it at once."""
        self.reserve(process, tenant, 15)
        self.announce(-1)
        if settled:
            self.settle(-1)

    @rule()
    def whole_round(self) -> None:
        self.pass_time(61)
        self.begin_round()
        while self.rounds:
            self.go_on(len(self.rounds) - 1)

    @precondition(lambda self: len(self.rounds) < 2)
    @rule()
    def begin_round(self) -> None:
        round_ = WriteOffs(FLEET).round(self.clock[0])
        self.rounds.append((round_, next(round_)))

    @precondition(lambda self: self.rounds)
    @rule(n=st.integers(0, 1))
    def go_on(self, n: int) -> None:
        round_, asked = self.rounds.pop(n % len(self.rounds))
        answers = self.store.run_many(asked.calls) if asked.calls else self.store.commands(asked.commands)
        with contextlib.suppress(StopIteration):
            self.rounds.append((round_, round_.send(answers)))

    @rule(seconds=st.sampled_from((0.01, 1.0, 16.0, 61.0, 3601.0)))
    def pass_time(self, seconds: float) -> None:
        self.clock[0] += round(seconds * S)

    @invariant()
    def whoever_has_something_open_will_be_looked_at(self) -> None:
        if self.unsaid:
            return
        index = {tenant: float(at) for tenant, at in pairs(self.store.command("ZRANGE", *SCORES)).items()}
        for tenant in TENANTS:
            first = self.store.command("ZRANGE", BudgetKeys(FLEET, tenant).open, 0, 0, "WITHSCORES")
            if first:
                assert tenant in index, f"{tenant} is forgotten"
                soon = max(float(first[1]), self.clock[0] + AGAIN)
                assert index[tenant] <= soon or (self.rounds and index[tenant] <= self.clock[0] + TAKEN)

    def teardown(self) -> None:
        """All is said, every round ends, time goes by: nothing is left open, and nobody is looked at any more."""
        while self.unsaid:
            self.announce(0)
        for _ in range(8):
            while self.rounds:
                self.go_on(0)
            self.clock[0] += 3700 * S
            self.begin_round()
        while self.rounds:
            self.go_on(0)
        for tenant in TENANTS:
            assert self.store.command("ZCARD", BudgetKeys(FLEET, tenant).open) == 0
        assert self.store.command("ZRANGE", *SCORES) == []


SCORES = (expiries_key(FLEET), 0, -1, "WITHSCORES")


def test_no_tenant_is_forgotten_whatever_the_order(server: EmbeddedRedis) -> None:
    clock = [0]
    with SyncStore(server.url, now_us=lambda: clock[0]) as store:
        run_state_machine_as_test(lambda: Offices(store, clock), settings=profile())  # type: ignore[arg-type]
