"""Who is next: tenants, weights, priorities, caps, and the account of tickets (protocol 6, 7)."""

from collections import Counter

import pytest

from techrevati.store import calls
from techrevati.store.calls import StartSpec
from tests.integration.store.desk import Desk

TEMPLATE = '{"task":"turn","id":"@TICKET@"}'


def fill(desk: Desk, tenant: str, count: int) -> None:
    made = [
        calls.start(
            desk.keys,
            StartSpec(
                run_id=desk.id(tenant),
                tenant=tenant,
                thread_id=desk.id("thread"),
                role="writer",
                agent="writer",
                payload_digest="p",
                fields={},
            ),
        )
        for _ in range(count)
    ]
    desk.store.run_many(made)


def claimed(desk: Desk, count: int) -> list[str]:
    return [desk.claim().fields["tenant"] for _ in range(count)]


def test_a_tenant_with_ten_runs_does_not_wait_for_one_with_a_thousand(desk: Desk) -> None:
    fill(desk, "acme", 1000)
    claimed(desk, 5)
    fill(desk, "zeta", 10)
    assert Counter(claimed(desk, 20))["zeta"] == 10


def test_weights_divide_the_turns(desk: Desk) -> None:
    desk.store.command("HSET", desk.keys.weights, "zeta", 3)
    fill(desk, "acme", 40)
    fill(desk, "zeta", 40)
    assert Counter(claimed(desk, 40))["zeta"] == 30


def test_a_tenant_cannot_win_by_leaving_and_coming_back(desk: Desk) -> None:
    fill(desk, "acme", 20)
    order = []
    for _ in range(10):
        fill(desk, "zeta", 1)
        order += claimed(desk, 2)
    assert Counter(order) == {"acme": 10, "zeta": 10}


def test_metered_cost_is_charged_at_the_commit(desk: Desk) -> None:
    fill(desk, "acme", 10)
    fill(desk, "zeta", 10)
    grant = desk.claim()
    desk.commit(grant, "complete", body="1", cost="4")
    other = {"acme": "zeta", "zeta": "acme"}[grant.fields["tenant"]]
    assert claimed(desk, 5) == [other] * 5


def test_the_oldest_session_is_finished_first(desk: Desk) -> None:
    old = desk.start(thread="old").run_id
    desk.wait(60)
    desk.start(thread="new")
    for _ in range(3):
        grant = desk.claim()
        assert grant.run_id == old
        desk.commit(grant)


def test_a_turn_that_was_had_costs_five_seconds_of_seniority(desk: Desk) -> None:
    old = desk.start(thread="old").run_id
    desk.wait(8)
    new = desk.start(thread="new").run_id
    seen = []
    for _ in range(6):
        grant = desk.claim()
        seen.append(grant.run_id)
        desk.commit(grant)
    assert seen == [old, old, new, old, new, old]


def test_sessions_of_one_burst_take_turns(desk: Desk) -> None:
    burst = []
    for number in range(3):
        burst.append(desk.start(f"run-{number}", thread=f"t{number}").run_id)
        desk.wait(1)
    seen = []
    for _ in range(6):
        grant = desk.claim()
        seen.append(grant.run_id)
        desk.wait(0.1)
        desk.commit(grant)
    assert seen == burst * 2


def test_a_priority_is_thirty_seconds_of_waiting(desk: Desk) -> None:
    desk.start("early", thread="early")
    desk.wait(20)
    desk.start("urgent", thread="urgent", priority=1)
    desk.wait(20)
    desk.start("late", thread="late", priority=1)
    assert [desk.claim().run_id for _ in range(3)] == ["urgent", "early", "late"]


def test_a_cap_holds_a_tenants_running_turns(desk: Desk) -> None:
    fill(desk, "acme", 5)
    desk.store.command("HSET", desk.keys.tickets("writer"), "cap", 2)
    grants = [desk.claim(), desk.claim()]
    assert desk.ask().grant is None
    fill(desk, "zeta", 1)
    assert desk.claim().fields["tenant"] == "zeta"
    desk.commit(grants[0], "complete", body="1")
    assert desk.claim().fields["tenant"] == "acme"
    assert desk.ask().grant is None


@pytest.mark.parametrize("new", [None, 5])
def test_a_cap_raised_or_taken_away_frees_its_tenants(desk: Desk, new: int | None) -> None:
    fill(desk, "acme", 3)
    key = desk.keys.tickets("writer")
    desk.store.command("HSET", key, "cap", 1)
    grant = desk.claim()
    assert desk.ask().grant is None
    desk.store.command(*(("HDEL", key, "cap") if new is None else ("HSET", key, "cap", new)))
    desk.sweep()
    desk.claim()
    desk.commit(grant, "complete", body="1")
    assert desk.role().running == ({} if new is None else {"acme": 1})


def test_a_claim_tells_how_much_is_ready_elsewhere(desk: Desk) -> None:
    fill(desk, "acme", 3)
    desk.store.command("HSET", desk.keys.tickets("writer"), "cap", 1)
    desk.claim()
    assert desk.ask().ready == 2


# Tickets.


def test_without_a_pool_no_ticket_is_sent(desk: Desk) -> None:
    desk.start()
    assert desk.role().window == 0
    assert desk.rung == []


def test_a_first_heartbeat_sends_tickets_for_what_waits(desk: Desk) -> None:
    fill(desk, "acme", 20)
    assert desk.beat(places=4, template=TEMPLATE) == (8, 20)
    tickets = desk.whole().tickets["writer"]
    assert len(tickets) == 8
    assert tickets[-1] == '{"task":"turn","id":"3-1"}'


def test_tickets_follow_ready_work_up_to_the_window(desk: Desk) -> None:
    desk.beat(places=1)
    fill(desk, "acme", 20)
    assert len(desk.rung) == 4
    desk.claim(from_ticket=True)
    assert len(desk.rung) == 5, "a claim that leaves work behind sends the next"


def test_where_the_broker_is_another_the_sender_is_asked_to(desk: Desk) -> None:
    desk.beat(places=1, template="")
    desk.start()
    assert desk.rung == ["writer"]
    assert desk.whole().tickets == {}


def test_who_leaves_does_not_take_the_template_along(desk: Desk) -> None:
    desk.beat(worker="w1", places=2, template=TEMPLATE)
    desk.beat(worker="w2", places=2, template=TEMPLATE)
    assert desk.beat(worker="w2", places=0)[0] == 4
    desk.start()
    assert desk.rung == []
    assert len(desk.whole().tickets["writer"]) == 1


def test_lost_tickets_are_sent_again_after_patience_that_doubles(desk: Desk) -> None:
    desk.beat(places=1)
    desk.start()
    sent = []
    for _ in range(7):
        desk.wait(0.5)
        desk.beat(places=1)
        desk.rung.clear()
        desk.sweep()
        sent.append(len(desk.rung))
    assert sent == [0, 1, 0, 0, 0, 1, 0]
    desk.release(desk.claim(from_ticket=True))
    assert desk.role().patience == 0, "a claim says that tickets arrive"


def test_a_revived_lease_always_sends_a_ticket(desk: Desk) -> None:
    desk.beat(places=1)
    desk.start()
    desk.claim(from_ticket=True)
    desk.store.command("HSET", desk.keys.tickets("writer"), "out", 4)  # held by the worker that died
    desk.wait(10)
    desk.beat(places=1)
    desk.wait(6)
    desk.rung.clear()
    desk.sweep()
    assert desk.rung == ["writer"]


def test_a_dead_pool_closes_the_window(desk: Desk) -> None:
    desk.beat(places=4)
    desk.wait(16)
    desk.sweep()
    assert desk.role().window == 0
    desk.rung.clear()
    desk.start()
    assert desk.rung == []


def test_one_coordinator_sweeps_a_partition_until_its_lease_ends(desk: Desk) -> None:
    def lease(holder: str, seconds: float = 5.0) -> bool:
        return desk.store.run(calls.partition_lease(desk.keys, holder, round(seconds * 1e6))).held

    assert lease("a")
    assert not lease("b")
    desk.wait(4)
    assert lease("a"), "its holder prolongs it"
    desk.wait(6)
    assert lease("b")
    assert lease("b", 0), "given back"
    assert lease("a", 0.0005)
