"""Claims, commits, leases and steps under lost replies and dead workers (protocol 3, 5, 8)."""

import json
from typing import Any

import pytest

from techrevati.store import calls, errors
from techrevati.store.calls import Suspended, after
from techrevati.store.records import OnBusy
from tests.integration.store.desk import TTL, Desk, S


def test_stale_token_cannot_commit(desk: Desk) -> None:
    desk.start()
    stale = desk.claim()
    desk.wait(16)
    desk.sweep()
    current = desk.claim(worker="w2")
    with pytest.raises(errors.LeaseLost) as lost:
        desk.commit(stale, "complete", body="1")
    assert lost.value.current == current.token
    assert desk.thread().version == 0
    assert desk.store.command("HGET", desk.keys.clock, "fenced") == "1"


def test_a_missing_token_is_no_key_to_a_free_run(desk: Desk) -> None:
    run = desk.start().run_id
    asked: list[calls.Call[Any]] = [
        calls.release(desk.keys, run, ""),
        calls.step_begin(desk.keys, run, "", "k", "rerun"),
        calls.step_end(desk.keys, run, "", [("k", "1")]),
        calls.live_append(desk.keys, run, "", 10, 1000, [("text", '"a"')]),
    ]
    for call in asked:
        with pytest.raises(errors.LeaseLost):
            desk.store.run(call)
    assert desk.store.run(calls.renew(desk.keys, TTL, [(run, "")])) == [calls.LOST]


def test_same_token_gets_the_same_reply(desk: Desk) -> None:
    desk.start()
    grant = desk.claim()
    first = desk.commit(grant, messages=['"a"'])
    again = desk.commit(grant, messages=['"a"'])
    assert (first.first, again.first) == (True, False)
    assert (first.version, first.home) == (again.version, again.home) == (1, "ready")
    assert desk.thread().messages == ['"a"']


def test_same_claim_gets_the_same_grant_and_counts_one_ticket(desk: Desk) -> None:
    desk.beat()
    for n in range(3):
        desk.start(thread=f"t{n}")
    first = desk.claim("claim-1", from_ticket=True)
    out = desk.role().out
    assert desk.claim("claim-1", from_ticket=True) == first
    assert desk.role().out == out
    assert desk.see(first.run_id).attempt == 0


def test_a_claim_whose_run_moved_on_gets_nothing(desk: Desk) -> None:
    desk.start()
    desk.start(thread="other")
    grant = desk.claim("claim-1")
    desk.commit(grant)
    assert desk.ask("claim-1").grant is None
    assert desk.role().ready == 2


def test_a_claim_id_is_compared_whole(desk: Desk) -> None:
    desk.start()
    desk.start(thread="other")
    first, second = desk.claim("x.claim"), desk.claim("claim")
    assert first.run_id != second.run_id


def test_a_commit_with_claim_sent_again_gets_the_same_next_turn(desk: Desk) -> None:
    desk.start()
    desk.start(thread="other")
    grant, then = desk.claim(), desk.spec("claim-next")
    first = desk.commit(grant, "complete", body="1", then=then)
    again = desk.commit(grant, "complete", body="1", then=then)
    assert first.grant is not None
    assert again.grant == first.grant
    assert not again.first


def test_a_commit_that_claims_nothing_leaves_a_ticket_for_its_run(desk: Desk) -> None:
    desk.start()
    desk.beat()
    grant = desk.claim(from_ticket=True)
    desk.store.command("HSET", desk.keys.tickets("editor"), "cap", 1)
    desk.rung.clear()
    # The only ready run is at its last attempt, and this worker's lane is taken.
    desk.start(thread="poison", attempts=2)
    poison = desk.claim()
    desk.wait(16)
    desk.renew(grant)
    desk.sweep()
    assert desk.see(poison.run_id).home == "last"
    desk.rung.clear()
    committed = desk.commit(grant, "complete", body="1", then=desk.spec(lane_free=False))
    assert committed.grant is None
    assert desk.role().out >= 1


def test_expired_lease_not_claimed_again_is_still_its_holders(desk: Desk) -> None:
    desk.start()
    grant = desk.claim()
    desk.wait(60)
    assert desk.renew(grant) == [calls.RENEWED]
    desk.wait(60)
    assert desk.commit(grant).version == 1


def test_fence_never_repeats_after_lost_writes(desk: Desk) -> None:
    desk.start()
    before = desk.claim()
    # The failover lost the claim: the thread's fence and the run stand as they were.
    desk.release(before)
    desk.store.command("HSET", desk.keys.thread("acme", "essay"), "fence", 0)
    desk.wait(0.001)
    after_failover = desk.claim()
    assert int(after_failover.token.split(".")[0]) > int(before.token.split(".")[0])
    with pytest.raises(errors.LeaseLost):
        desk.commit(before)


def test_time_never_falls(desk: Desk) -> None:
    desk.start()
    grant = desk.claim()
    desk.wait(-30)
    other = desk.start(thread="other")
    assert desk.see(other.run_id).created == grant.now_us
    assert desk.sweep().expired == 0


def test_an_expired_turn_runs_again_and_tells_its_attempt(desk: Desk) -> None:
    desk.start()
    desk.claim()
    desk.wait(16)
    assert desk.sweep().expired == 1
    again = desk.claim(worker="w2")
    assert (again.fields["attempt"], again.fields["turn"]) == ("1", "1")


def test_a_run_that_kills_its_workers_becomes_a_dead_letter(desk: Desk) -> None:
    run = desk.start(attempts=3).run_id
    for _ in range(3):
        desk.claim()
        desk.wait(16)
        swept = desk.sweep()
    assert swept.dead == 1
    assert desk.see(run).status == "dead"
    assert json.loads(desk.see(run).error)["type"] == "WorkerDied"


def test_the_last_attempt_has_a_lane_of_its_own(desk: Desk) -> None:
    run = desk.start(attempts=2).run_id
    desk.claim()
    desk.wait(16)
    desk.sweep()
    assert desk.see(run).home == "last"
    assert desk.ask(lane_free=False).grant is None
    assert desk.claim(lane_free=True).run_id == run


def test_release_park_and_commit_count_no_attempt(desk: Desk) -> None:
    desk.start()
    desk.release(desk.claim())
    desk.commit(desk.claim(), "park", when="+0", target="model:x")
    desk.sweep()
    desk.commit(desk.claim())
    assert desk.claim().fields["attempt"] == "0"


def test_release_keeps_the_place(desk: Desk) -> None:
    first = desk.start(thread="t1").run_id
    desk.wait(5)
    desk.start(thread="t2")
    desk.wait(1)
    grant = desk.claim()
    assert grant.run_id == first
    desk.release(grant)
    assert desk.claim().run_id == first


def test_a_late_commit_of_a_released_token_is_refused(desk: Desk) -> None:
    desk.start()
    grant = desk.claim()
    assert desk.release(grant)
    assert not desk.release(grant)
    with pytest.raises(errors.LeaseLost):
        desk.commit(grant)


def test_a_release_leaves_the_last_commit_its_reply(desk: Desk) -> None:
    desk.start()
    first = desk.claim()
    desk.commit(first)
    desk.release(desk.claim(worker="w2"))
    assert not desk.commit(first).first


def test_expiries_wait_for_a_ttl_after_redis_was_lost(desk: Desk) -> None:
    desk.start()
    grant = desk.claim()
    desk.wait(16)
    assert desk.sweep(expire=False).expired == 0
    assert desk.commit(grant).first


def test_many_expired_leases_left_alone_do_not_starve_the_timers(desk: Desk) -> None:
    for n in range(140):
        desk.start(thread=f"t{n}")
    grants = [desk.claim() for _ in range(140)]
    desk.start("sleeper", thread="sleeper", begin=after(20 * S))
    desk.wait(21)
    swept = [desk.sweep(expire=False) for _ in range(2)]
    assert desk.see("sleeper").home == "ready"
    assert swept[-1].expired == 0
    next_us = swept[-1].next_us
    assert next_us is not None
    assert next_us > desk.now
    assert desk.renew(*grants[:100]) == [calls.RENEWED] * 100


def test_a_granted_turn_brings_the_thread_to_a_worker_that_does_not_know_it(desk: Desk) -> None:
    desk.start()
    desk.commit(desk.claim(), messages=['"a"'], state_kind="f", state='{"k":1}', bytes=10)
    known = desk.claim(worker="w1")
    assert known.messages is None
    desk.release(known)
    new = desk.claim(worker="w2")
    assert new.messages == ['"a"']
    assert new.checkpoints is not None
    assert [version.full for version in new.checkpoints] == ['{"k":1}']
    desk.release(new)
    assert desk.claim(worker="w3", inline=5).messages is None


def test_versions_are_a_chain_of_commits(desk: Desk) -> None:
    desk.start()
    tokens = []
    for _ in range(3):
        grant = desk.claim()
        desk.commit(grant)
        tokens.append(grant.token)
    versions = desk.thread().versions
    assert [version.commit for version in versions] == tokens
    assert [version.previous for version in versions] == ["", *tokens[:2]]


def test_a_step_result_is_journaled_and_replayed(desk: Desk) -> None:
    run = desk.start().run_id
    first = desk.claim()
    assert desk.store.run(calls.step_begin(desk.keys, run, first.token, "pay", "rerun")) is None
    assert desk.store.run(calls.step_end(desk.keys, run, first.token, [("pay", '"paid"')])) == '"paid"'
    assert desk.store.run(calls.step_end(desk.keys, run, first.token, [("pay", '"twice"')])) == '"paid"'
    desk.wait(16)
    desk.sweep()
    second = desk.claim(worker="w2")
    assert second.journal["e:pay"] == '"paid"'
    assert desk.store.run(calls.step_begin(desk.keys, run, second.token, "pay", "rerun")) == '"paid"'
    desk.commit(second)
    assert desk.claim().journal == {}


def test_a_once_step_is_not_begun_twice(desk: Desk) -> None:
    run = desk.start().run_id
    first = desk.claim()
    for _ in range(2):  # the reply was lost: the same attempt may ask again
        assert desk.store.run(calls.step_begin(desk.keys, run, first.token, "pay", "once")) is None
    desk.wait(16)
    desk.sweep()
    second = desk.claim(worker="w2")
    with pytest.raises(errors.StepInDoubt):
        desk.store.run(calls.step_begin(desk.keys, run, second.token, "pay", "once"))
    desk.commit(second, "dead", body='{"type":"StepInDoubt"}')
    desk.retry(run)  # an operator found out and sends it back: the step may run
    third = desk.claim()
    assert desk.store.run(calls.step_begin(desk.keys, run, third.token, "pay", "once")) is None


def test_parked_and_retried_turns_replay_what_was_paid(desk: Desk) -> None:
    desk.start()
    desk.commit(desk.claim(), "park", when=after(2 * S), target="model:x", journal=[("model", '"dear"')])
    desk.wait(3)
    desk.sweep()
    parked = desk.claim()
    assert (parked.journal["e:model"], parked.fields["turn"]) == ('"dear"', "1")
    desk.commit(parked, "retry", when=after(2 * S), target="Timeout", body='{"type":"T"}', journal=[("tool", '"dear"')])
    desk.wait(3)
    desk.sweep()
    retried = desk.claim()
    assert sorted(retried.journal) == ["e:model", "e:tool"]
    assert retried.fields["fails"] == "1"


def test_a_sleep_that_is_over_goes_straight_to_ready(desk: Desk) -> None:
    desk.start()
    assert desk.commit(desk.claim(), "sleep", when="+0").home == "ready"
    assert desk.commit(desk.claim(), "sleep", when=after(S)).home == "due"


@pytest.mark.parametrize(
    "bad",
    [
        {"move": "vanish"},
        {"move": "sleep"},
        {"move": "retry", "target": "Timeout"},
        {"move": "park", "when": "+1", "target": "decision"},
    ],
)
def test_a_malformed_move_is_refused_before_anything_is_written(desk: Desk, bad: dict[str, Any]) -> None:
    desk.start()
    grant = desk.claim()
    before = desk.whole()
    with pytest.raises(errors.ScriptFault):
        desk.commit(grant, **bad, messages=['"x"'])
    assert desk.whole() == before


def test_deltas_follow_the_last_event_and_are_not_doubled(desk: Desk) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    first = calls.live_append(desk.keys, run, grant.token, 1000, 600_000, [("text", '"a"'), ("text", '"b"')])
    assert [desk.store.run(first) for _ in range(2)] == [(2, 2), (2, 2)]
    more = calls.live_append(desk.keys, run, grant.token, 1000, 600_000, [("text", '"c"')])
    assert desk.store.run(more) == (2, 3)
    assert desk.store.run(first) == (2, 3)
    assert [(delta.n, delta.data) for delta in desk.see(run).live] == [(1, '"a"'), (2, '"b"'), (3, '"c"')]
    assert 0 < desk.store.command("PTTL", desk.keys.live(run)) <= 600_000
    desk.commit(grant, "complete", body="1")
    with pytest.raises(errors.LeaseLost):
        desk.store.run(more)
    assert desk.store.command("PTTL", desk.keys.live(run)) <= 600_000


def test_a_script_makes_no_key_of_a_run_that_is_gone(desk: Desk) -> None:
    asked: list[calls.Call[Any]] = [
        calls.release(desk.keys, "gone", "1.x"),
        calls.step_begin(desk.keys, "gone", "1.x", "k", "rerun"),
        calls.step_end(desk.keys, "gone", "1.x", [("k", "1")]),
        calls.live_append(desk.keys, "gone", "1.x", 10, 1000, [("text", '"a"')]),
        calls.inbox_put(desk.keys, "gone", "e", "steer", "", "1"),
        calls.cancel(desk.keys, "gone", "enough", 0),
        calls.retry(desk.keys, "gone"),
        calls.route(desk.keys, "gone", 1, "place", role="writer", agent="writer"),
        calls.commit(desk.keys, calls.CommitSpec(run_id="gone", token="1.x", move="complete", worker="w1")),
    ]
    for call in asked:
        with pytest.raises(errors.RunNotFound):
            desk.store.run(call)
    assert desk.store.run(calls.renew(desk.keys, TTL, [("gone", "1.x")])) == [calls.LOST]
    assert desk.keys_like(f"*{desk.keys.fleet}*gone*") == []


def test_a_caller_below_the_minimum_protocol_is_told_to_upgrade(desk: Desk) -> None:
    desk.start()
    desk.store.command("HSET", desk.keys.clock, "min", 2)
    with pytest.raises(errors.UpgradeRequired):
        desk.ask()
    desk.store.command("HDEL", desk.keys.clock, "min")


# Rollback: "state of k".


def test_rollback_says_state_of_the_version_before(desk: Desk) -> None:
    desk.start()
    desk.commit(desk.claim(), "complete", body="1", messages=['"1"', '"2"'], state_kind="f", state='{"v":1}')
    undone = desk.start().run_id
    for message in ('"3"', '"4"'):
        desk.commit(desk.claim(), messages=[message], state_kind="d", state='{"v":2}')
    desk.start(on_busy=OnBusy.ROLLBACK)
    thread = desk.thread()
    newest = thread.versions[-1]
    assert desk.see(undone).status == "superseded"
    assert (newest.version, newest.back_to, newest.back_full) == (4, 1, 1)
    assert (thread.spans, thread.stored, thread.version) == ("0:2,4:", 4, 4)
    assert newest.previous == thread.versions[-2].commit
    grant = desk.claim(worker="w1")
    assert grant.thread.commit == newest.commit
    assert grant.checkpoints is not None, "no worker's memory of the undone state may be used"


def test_rollback_of_the_first_run_hides_everything(desk: Desk) -> None:
    desk.start()
    desk.commit(desk.claim(), messages=['"1"'], state_kind="f", state='{"v":1}')
    desk.start(on_busy=OnBusy.ROLLBACK)
    thread = desk.thread()
    assert (thread.spans, thread.versions[-1].back_to) == ("1:", 0)


def test_rollback_where_nothing_was_committed_adds_no_version(desk: Desk) -> None:
    desk.start()
    desk.claim()
    desk.start(on_busy=OnBusy.ROLLBACK)
    assert (desk.thread().version, desk.thread().spans) == (0, "0:")


def test_a_rollback_is_rolled_back_in_turn(desk: Desk) -> None:
    desk.start()
    desk.commit(desk.claim(), "complete", body="1", messages=['"1"'], state_kind="f", state='{"v":1}')
    for message in ('"2"', '"3"'):
        desk.start(on_busy=OnBusy.ROLLBACK)
        desk.commit(desk.claim(), messages=[message], state_kind="f", state='{"v":2}')
    desk.start(on_busy=OnBusy.ROLLBACK)
    assert desk.thread().spans == "0:1,3:"


def test_trimming_keeps_what_a_rollback_would_rebuild(desk: Desk) -> None:
    desk.start()
    desk.commit(desk.claim(), messages=['"1"'], state_kind="f", state='{"v":1}')
    desk.commit(desk.claim(), "complete", body="1", state_kind="d", state='{"v":2}')
    desk.start()
    for kept in ("99", "99"):
        desk.commit(desk.claim(), state_kind="f", state='{"v":3}', keep_from=kept)
    assert [version.version for version in desk.thread().versions] == [1, 2, 3, 4]
    desk.start(on_busy=OnBusy.ROLLBACK)
    # Now the newest says "as version 2": trimming may not take 1 and 2 from under it either.
    desk.commit(desk.claim(), state_kind="f", state='{"v":4}', keep_from="99")
    assert {1, 2, 5, 6} <= {version.version for version in desk.thread().versions}


def test_trimming_keeps_deltas_that_no_full_version_is_under(desk: Desk) -> None:
    desk.start()
    desk.commit(desk.claim(), "complete", body="1", state_kind="d", state='{"v":1}')
    desk.start()
    desk.commit(desk.claim(), state_kind="d", state='{"v":2}')
    desk.start(on_busy=OnBusy.ROLLBACK)
    desk.start(on_busy=OnBusy.ROLLBACK)
    desk.commit(desk.claim(), state_kind="f", state='{"v":3}', keep_from="99")
    assert [version.version for version in desk.thread().versions] == [1, 2, 3, 4]


def test_trimming_never_takes_the_newest_full_version(desk: Desk) -> None:
    desk.start()
    for _ in range(3):
        desk.commit(desk.claim(), state_kind="f", state='{"v":1}', keep_from="99")
    assert [version.version for version in desk.thread().versions] == [3]


def test_a_suspended_turn_keeps_its_messages(desk: Desk) -> None:
    desk.start()
    desk.suspend(desk.claim(), Suspended(call_id="c1"), messages=['"which?"'])
    assert desk.thread().messages == ['"which?"']
