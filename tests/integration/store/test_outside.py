"""What reaches a run from outside: decisions, messages, sub-agents' ends, cancel, retry (protocol 4, 9)."""

import json
from typing import Any

import pytest

from techrevati.store import calls, errors
from techrevati.store.calls import Suspended, after
from techrevati.store.records import OnBusy
from tests.integration.store.desk import Desk, S

ASK = Suspended(call_id="c1", aliases=("tool-1", "ext-1"))


def suspended(desk: Desk, *asks: Suspended) -> str:
    run = desk.start().run_id
    desk.suspend(desk.claim(), *(asks or (ASK,)))
    return run


# Decisions.


def test_a_decision_wakes_the_run_that_waits_for_it(desk: Desk) -> None:
    run = suspended(desk)
    assert (desk.see(run).home, desk.whole().due[run]) == ("due", float("inf"))
    assert desk.decide(run, "c1", "d1")
    grant = desk.claim()
    assert [(entry.entry_id, entry.kind, entry.body) for entry in grant.inbox] == [
        ("d1", "decision", {"action": "resume"})
    ]
    desk.commit(grant, inbox=["d1"])
    assert desk.claim().inbox == []


@pytest.mark.parametrize("alias", ["c1", "tool-1", "ext-1"])
def test_first_decision_wins_under_any_of_its_three_ids(desk: Desk, alias: str) -> None:
    run = suspended(desk)
    assert desk.decide(run, alias, "d1")
    assert not desk.decide(run, alias, "d1"), "sent again, it changes nothing"
    for other in ("c1", "tool-1", "ext-1"):
        with pytest.raises(errors.AlreadyDecided):
            desk.decide(run, other, "d2")
    assert len(desk.claim().inbox) == 1


def test_decision_while_turn_runs_is_not_lost(desk: Desk) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    desk.decide(run, "tool-1", "early")
    assert desk.suspend(grant, ASK).home == "ready"
    assert [entry.entry_id for entry in desk.claim().inbox] == ["early"]
    with pytest.raises(errors.AlreadyDecided):
        desk.decide(run, "c1", "late")


def test_of_two_early_decisions_for_one_call_the_first_stands(desk: Desk) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    desk.decide(run, "ext-1", "first")
    desk.decide(run, "c1", "second")
    desk.suspend(grant, ASK)
    assert [entry.entry_id for entry in desk.claim().inbox] == ["first"]


def test_a_decision_read_before_its_call_was_asked_is_read_again(desk: Desk) -> None:
    run = desk.start().run_id
    desk.decide(run, "c1", "early")
    grant = desk.claim()
    assert [entry.entry_id for entry in grant.inbox] == ["early"]
    assert desk.suspend(grant, ASK, inbox=["early"]).home == "ready"
    again = desk.claim()
    assert [entry.entry_id for entry in again.inbox] == ["early"]
    # The call is known now, and this turn used its decision: waiting for another one is waiting.
    assert desk.suspend(again, ASK, Suspended(call_id="c2"), inbox=["early"]).home == "due"


def test_a_call_that_is_asked_again_waits_for_another_decision(desk: Desk) -> None:
    run = suspended(desk)
    desk.decide(run, "tool-1", "d1")
    again = Suspended(call_id="c1", aliases=("tool-2", ""))
    assert desk.suspend(desk.claim(), again, inbox=["d1"]).home == "due"
    with pytest.raises(errors.AlreadyDecided):
        desk.decide(run, "tool-1", "for the first question")
    assert not desk.decide(run, "c1", "d1"), "the first decision, sent again, is no answer to the second question"
    assert desk.decide(run, "tool-2", "d2")
    assert [entry.entry_id for entry in desk.claim().inbox] == ["d2"]


def test_a_decision_for_an_unknown_call_is_refused_once_the_run_waits(desk: Desk) -> None:
    run = suspended(desk)
    with pytest.raises(errors.UnknownCall):
        desk.decide(run, "c9")


def test_a_decision_for_an_ended_run_is_refused(desk: Desk) -> None:
    run = suspended(desk)
    desk.decide(run, "c1", "d1")
    desk.commit(desk.claim(), "complete", body="1")
    with pytest.raises(errors.RunEnded):
        desk.decide(run, "c1", "d2")
    assert not desk.decide(run, "c1", "d1"), "the reply was lost: it did arrive"


def test_expiry_is_a_decision_put_by_the_sweep(desk: Desk) -> None:
    default = '{"action":"cancel","expired":true}'
    run = suspended(desk, Suspended(call_id="c1", expires=after(5 * S), default=default), Suspended(call_id="c2"))
    assert desk.sweep().next_us == desk.now + 5 * S
    desk.wait(5)
    desk.sweep()
    grant = desk.claim()
    assert [(entry.kind, entry.body) for entry in grant.inbox] == [("decision", json.loads(default))]
    with pytest.raises(errors.AlreadyDecided):
        desk.decide(run, "c1")
    assert desk.decide(run, "c2")


def test_a_decided_call_does_not_expire(desk: Desk) -> None:
    run = suspended(desk, Suspended(call_id="c1", expires=after(5 * S), default="{}"))
    desk.decide(run, "c1", "d1")
    desk.wait(6)
    desk.sweep()
    assert [entry.entry_id for entry in desk.claim().inbox] == ["d1"]


# Messages.


def test_steer_wakes_a_sleeping_run_and_is_read_once(desk: Desk) -> None:
    run = desk.start().run_id
    desk.commit(desk.claim(), "sleep", when=after(60 * S))
    assert desk.steer(run, "s1")
    grant = desk.claim()
    desk.commit(grant, "sleep", when=after(60 * S), inbox=["s1"])
    assert not desk.steer(run, "s1"), "sent again after it was read"
    assert desk.see(run).home == "due"
    assert desk.see(run).inbox == {}


def test_a_quiet_entry_waits_for_the_next_turn(desk: Desk) -> None:
    run = desk.start().run_id
    desk.commit(desk.claim(), "sleep", when=after(60 * S))
    desk.steer(run, "~note")
    assert desk.see(run).home == "due"
    desk.wait(60)
    desk.sweep()
    assert [entry.entry_id for entry in desk.claim().inbox] == ["~note"]


def test_entries_come_in_the_order_they_were_put(desk: Desk) -> None:
    run = desk.start().run_id
    names = [f"s{n}" for n in (3, 1, 2)]
    for name in names:
        desk.steer(run, name)
    assert [entry.entry_id for entry in desk.claim().inbox] == names


def test_an_inbox_has_an_end(desk: Desk) -> None:
    run = desk.start().run_id
    puts = [calls.inbox_put(desk.keys, run, f"s{n}", "steer", "", "1") for n in range(512)]
    desk.store.run_many(puts)
    with pytest.raises(errors.PayloadTooLarge):
        desk.steer(run)


# Sub-agents.


def family(desk: Desk, **fields: Any) -> tuple[str, str]:
    parent = desk.start("parent").run_id
    grant = desk.claim()
    kid = desk.start("kid", thread=f"sub-agent-{parent}", role="editor", parent=parent, **fields).run_id
    desk.suspend(grant, Suspended(call_id="kid"))
    return parent, kid


def test_a_childs_end_wakes_its_parent(desk: Desk) -> None:
    parent, kid = family(desk)
    desk.commit(desk.claim(role="editor"), "complete", body="42")
    [entry] = desk.claim().inbox
    assert (entry.kind, entry.body) == ("child", {"run_id": kid, "status": "completed"})
    assert desk.see(parent).status == "running"


def test_a_childs_end_while_its_parents_turn_runs_is_not_lost(desk: Desk) -> None:
    parent = desk.start("parent").run_id
    grant = desk.claim()
    desk.start("kid", thread="sub-agent-parent", role="editor", parent=parent)
    desk.commit(desk.claim(role="editor"), "complete", body="42")
    assert desk.suspend(grant, Suspended(call_id="kid")).home == "ready"
    assert [entry.kind for entry in desk.claim().inbox] == ["child"]


def test_a_turn_parked_for_a_child_goes_on_at_its_end(desk: Desk) -> None:
    parent = desk.start("parent").run_id
    grant = desk.claim()
    desk.start("kid", thread="sub-agent-parent", role="editor", parent=parent)
    desk.commit(grant, "park", when=after(600 * S), target="child")
    desk.commit(desk.claim(role="editor"), "complete", body="42")
    assert desk.see(parent).home == "ready"


def test_a_booking_is_not_broken_by_a_message(desk: Desk) -> None:
    run = desk.start().run_id
    desk.commit(desk.claim(), "park", when=after(5 * S), target="model:m")
    desk.steer(run)
    assert desk.see(run).home == "due"


def test_both_ends_of_a_retried_child_reach_its_parent(desk: Desk) -> None:
    _, kid = family(desk)
    desk.commit(desk.claim(role="editor"), "fail", body='{"type":"Failed"}')
    grant = desk.claim()
    desk.retry(kid)
    desk.commit(desk.claim(role="editor"), "complete", body="42")
    desk.suspend(grant, Suspended(call_id="kid"), inbox=[entry.entry_id for entry in grant.inbox])
    assert [entry.body["status"] for entry in desk.claim().inbox] == ["completed"]


def test_a_childs_end_reaches_a_parent_that_is_sent_back(desk: Desk) -> None:
    parent, kid = family(desk, detached="1")
    desk.decide(parent, "kid")
    desk.commit(desk.claim(), "fail", body='{"type":"Failed"}')
    desk.commit(desk.claim(role="editor"), "complete", body="42")
    assert desk.store.command("PTTL", desk.keys.inbox(parent)) > 0
    desk.retry(parent)
    assert {"run_id": kid, "status": "completed"} in [entry.body for entry in desk.claim().inbox]


def test_an_ended_parent_starts_no_child(desk: Desk) -> None:
    parent = desk.start("parent").run_id
    desk.commit(desk.claim(), "complete", body="1")
    with pytest.raises(errors.RunNotFound):
        desk.start(thread="sub-agent-parent", parent=parent)


def test_a_run_has_128_children_at_most(desk: Desk) -> None:
    parent = desk.start("parent").run_id
    for n in range(128):
        desk.start(thread=f"sub-{n}", parent=parent)
    with pytest.raises(errors.TooManyChildren):
        desk.start(thread="one-more", parent=parent)


# Cancel.


def test_cancel_ends_a_waiting_run_at_once(desk: Desk) -> None:
    run = suspended(desk)
    assert desk.cancel(run) == "cancelled"
    assert desk.cancel(run) == "cancelled"
    assert desk.see(run).reason == "enough"


def test_cancel_asks_a_running_turn_to_stop(desk: Desk) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    listener = desk.store.redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(desk.keys.stop)
    listener.get_message(timeout=5)
    assert desk.cancel(run) == "running"
    heard = None
    while heard is None:
        heard = listener.get_message(timeout=5)
    assert heard["data"] == run
    listener.close()
    assert desk.renew(grant) == [calls.STOPPING]


@pytest.mark.parametrize("move", ["continue", "sleep", "park", "retry", "suspend", "handoff", "dead"])
def test_every_waiting_move_under_the_flag_becomes_cancelled(desk: Desk, move: str) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    desk.cancel(run)
    desk.commit(grant, move, when="+1000000", target="editor", body="{}", calls=[ASK] if move == "suspend" else [])
    assert desk.see(run).status == "cancelled"


@pytest.mark.parametrize(("move", "status"), [("complete", "completed"), ("fail", "failed")])
def test_complete_and_fail_stand_under_the_flag(desk: Desk, move: str, status: str) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    desk.cancel(run)
    desk.commit(grant, move, body="{}", messages=['"last words"'])
    assert desk.see(run).status == status
    assert desk.thread().messages == ['"last words"']


def test_a_cancelled_commit_keeps_its_messages(desk: Desk) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    desk.cancel(run)
    desk.commit(grant, messages=['"last words"'])
    assert (desk.see(run).status, desk.thread().messages) == ("cancelled", ['"last words"'])


def test_a_released_run_under_the_flag_is_cancelled(desk: Desk) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    desk.cancel(run)
    desk.release(grant)
    assert desk.see(run).status == "cancelled"
    assert not desk.release(grant)


def test_the_grace_ends_a_run_that_does_not_stop(desk: Desk) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    desk.cancel(run, grace=10)
    for _ in range(2):
        desk.wait(4.9)
        assert desk.renew(grant) == [calls.STOPPING], "renewing does not buy time beyond the grace"
        desk.sweep()
        assert desk.see(run).status == "running"
    desk.wait(0.3)
    desk.sweep()
    assert desk.see(run).status == "cancelled"
    with pytest.raises(errors.LeaseLost):
        desk.commit(grant, "complete", body="1")


def test_the_grace_holds_while_expiries_wait(desk: Desk) -> None:
    run = desk.start().run_id
    desk.claim()
    desk.wait(14)
    desk.cancel(run, grace=10)
    desk.wait(2)
    desk.sweep(expire=False)
    assert desk.see(run).status == "running", "its lease ran out, its grace did not"
    desk.wait(9)
    desk.sweep(expire=False)
    assert desk.see(run).status == "cancelled"


def test_a_dead_workers_flagged_run_is_not_run_again(desk: Desk) -> None:
    run = desk.start().run_id
    desk.claim()
    desk.cancel(run, grace=60)
    desk.wait(16)
    desk.sweep()
    assert desk.see(run).status == "cancelled"


def test_cancel_goes_over_the_tree(desk: Desk) -> None:
    desk.start("top")
    grant = desk.claim()
    names = ["top"]
    for depth in range(12):
        names.append(desk.start(f"kid{depth}", thread=f"sub-agent-{names[-1]}", role="editor", parent=names[-1]).run_id)
    desk.suspend(grant, ASK)
    desk.cancel("top")
    assert {run.status for run in desk.whole().runs.values()} == {"cancelled"}


def test_a_tree_too_wide_for_one_script_is_ended_by_the_sweep(desk: Desk) -> None:
    desk.start("top")
    grant = desk.claim()
    for n in range(3):
        desk.start(f"mid{n}", thread=f"mid{n}", role="editor", parent="top")
        for leaf in range(60):
            desk.start(f"leaf{n}-{leaf}", thread=f"leaf{n}-{leaf}", role="editor", parent=f"mid{n}")
    desk.suspend(grant, ASK)
    desk.cancel("top")
    assert desk.well() == []
    while desk.sweep().moved:
        assert desk.well() == []
    assert {run.status for run in desk.whole().runs.values()} == {"cancelled"}


def test_a_child_started_under_the_flag_ends_with_its_parent(desk: Desk) -> None:
    desk.start("top")
    grant = desk.claim()
    desk.cancel("top")
    desk.start("late", thread="sub-agent-top", role="editor", parent="top")
    desk.commit(grant)
    assert desk.see("late").status == "cancelled"


def test_interrupt_stops_the_sub_agents_too(desk: Desk) -> None:
    _, kid = family(desk)
    desk.start(on_busy=OnBusy.INTERRUPT)
    assert desk.see(kid).status == "cancelled"


# Retry.


def test_a_dead_letter_is_sent_back_with_all_that_reached_it(desk: Desk) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    desk.steer(run, "s1")
    desk.commit(grant, "dead", body='{"type":"T"}', journal=[("model", '"dear"')])
    assert desk.store.command("PTTL", desk.keys.journal(run)) > 0
    assert desk.retry(run) == "ready"
    assert desk.retry(run) == "ready", "the reply was lost"
    again = desk.claim()
    assert (again.fields["turn"], again.journal) == ("1", {"e:model": '"dear"'})
    assert [entry.entry_id for entry in again.inbox] == ["s1"]
    for key in (desk.keys.run(run), desk.keys.events(run), desk.keys.inbox(run), desk.keys.journal(run)):
        assert desk.store.command("PTTL", key) == -1


def test_a_retried_run_can_wait_again(desk: Desk) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    desk.steer(run, "s1")
    desk.cancel(run)
    desk.commit(grant)
    desk.retry(run)
    assert desk.commit(desk.claim(), "sleep", when=after(60 * S), inbox=["s1"]).home == "due"


def test_a_completed_run_is_not_retried(desk: Desk) -> None:
    run = desk.start().run_id
    desk.commit(desk.claim(), "complete", body="1")
    with pytest.raises(errors.NotRetriable):
        desk.retry(run)


def test_a_run_at_work_is_not_retried(desk: Desk) -> None:
    with pytest.raises(errors.NotRetriable):
        desk.retry(desk.start().run_id)


def test_a_retried_run_waits_behind_the_one_that_took_its_place(desk: Desk) -> None:
    run = desk.start().run_id
    desk.commit(desk.claim(), "fail", body="{}")
    desk.start()
    assert desk.retry(run) == "line"


def test_a_failed_handoff_is_placed_after_a_retry(desk: Desk) -> None:
    run = desk.start().run_id
    desk.commit(desk.claim(), "handoff", target="editor", body='{"k":1}')
    desk.route(run, 1, "fail", why='{"type":"UnknownRole"}')
    assert desk.see(run).status == "failed"
    assert desk.retry(run) == "routes"
    assert desk.route(run, 1, "place", role="editor", agent="editor")
    assert desk.claim(role="editor").fields["handed"] == '{"k":1}'


# Handoffs.


def test_a_handoff_rings_the_coordinator_and_is_placed_once(desk: Desk) -> None:
    run = desk.start().run_id
    desk.commit(desk.claim(), "handoff", target="editor", body="{}")
    assert desk.whole().bells == 1
    assert desk.route(run, 1, "place", role="editor", agent="editor")
    assert not desk.route(run, 1, "place", role="editor", agent="editor")
    grant = desk.claim(role="editor")
    assert (grant.fields["agent"], grant.fields["hops"]) == ("editor", "1")
    desk.release(grant)


def test_a_handoff_without_a_pool_says_so_once_and_is_looked_at_again(desk: Desk) -> None:
    run = desk.start().run_id
    desk.commit(desk.claim(), "handoff", target="editor", body="{}")
    for _ in range(3):
        desk.route(run, 1, "wait", when="+1000000", why="no pool of editor")
        assert (desk.see(run).home, desk.see(run).detail) == ("due", "no pool of editor")
        desk.wait(1)
        desk.sweep()
        assert desk.see(run).home == "routes"
    assert desk.kinds(run).count("run.waiting") == 1
