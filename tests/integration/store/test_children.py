"""Sub-agents: started by the holder of a lease, and what their parents wait for (protocol 1, 4, 9)."""

from typing import Any

import pytest

from techrevati.store import errors
from techrevati.store.calls import Suspended, after
from techrevati.store.records import Grant
from tests.integration.store.desk import Desk, S


def parent_of(desk: Desk, *kids: str) -> Grant:
    """A leased parent, and its children in the pool of editors."""
    desk.start()
    grant = desk.claim()
    for kid in kids:
        child(desk, grant, kid)
    return grant


def child(desk: Desk, grant: Grant, kid: str, **more: Any) -> None:
    desk.start(kid, f"sub-agent-{kid}", role="editor", parent=grant.run_id, parent_token=grant.token, **more)


def end(desk: Desk, move: str = "complete") -> str:
    grant = desk.claim(role="editor")
    desk.commit(grant, move, body="{}")
    return grant.run_id


def wait(desk: Desk, grant: Grant, open: int, **more: Any) -> str:
    return desk.commit(grant, "suspend", target=str(open), body='[{"child":"k"}]', **more).home


def test_parent_is_woken_by_the_last_of_those_it_waits_for(desk: Desk) -> None:
    grant = parent_of(desk, "k1", "k2", "k3")
    assert wait(desk, grant, 3) == "due"
    assert (desk.see(grant.run_id).why, desk.see(grant.run_id).open) == ("child", 3)
    end(desk)
    end(desk, "fail")
    assert desk.see(grant.run_id).home == "due"
    end(desk)
    told = desk.claim().inbox
    assert [(entry.kind, entry.body["run_id"], entry.body["status"]) for entry in told] == [
        ("child", "k1", "completed"),
        ("child", "k2", "failed"),
        ("child", "k3", "completed"),
    ]


def test_an_end_while_the_parents_turn_runs_is_counted(desk: Desk) -> None:
    grant = parent_of(desk, "k1", "k2")
    end(desk)
    assert wait(desk, grant, 2) == "due"
    assert desk.see(grant.run_id).open == 1
    end(desk)
    assert len(desk.claim().inbox) == 2


def test_a_wait_for_what_has_ended_is_none(desk: Desk) -> None:
    grant = parent_of(desk, "k1")
    end(desk)
    assert wait(desk, grant, 1) == "ready"


def test_a_message_wakes_whoever_waits_for_children(desk: Desk) -> None:
    grant = parent_of(desk, "k1", "k2")
    wait(desk, grant, 2)
    desk.steer(grant.run_id)
    assert [entry.kind for entry in desk.claim().inbox] == ["steer"]


def test_a_message_while_the_parents_turn_runs_keeps_it_from_waiting(desk: Desk) -> None:
    grant = parent_of(desk, "k1", "k2")
    desk.steer(grant.run_id)
    assert wait(desk, grant, 2) == "ready"


def test_a_wait_for_children_may_expire(desk: Desk) -> None:
    grant = parent_of(desk, "k1")
    wait(desk, grant, 1, when=after(5 * S))
    assert desk.sweep().next_us == desk.now + 5 * S
    desk.wait(5)
    desk.sweep()
    assert desk.claim().inbox == []


def test_only_the_holder_of_the_lease_starts_a_child(desk: Desk) -> None:
    grant = parent_of(desk)
    desk.release(grant)
    with pytest.raises(errors.LeaseLost, match=grant.token):
        child(desk, grant, "k1")
    again = desk.claim()
    child(desk, again, "k1")
    with pytest.raises(errors.LeaseLost):
        child(desk, grant, "k2")
    assert list(desk.see(grant.run_id).kids) == ["k1"]


def test_a_turn_that_runs_again_gets_the_child_it_had(desk: Desk) -> None:
    grant = parent_of(desk)
    child(desk, grant, "k1", idem="turn-1-call-1")
    desk.release(grant)
    child(desk, desk.claim(), "another", idem="turn-1-call-1")
    assert list(desk.see(grant.run_id).kids) == ["k1"]


def test_a_child_is_as_old_as_its_parent(desk: Desk) -> None:
    grant = parent_of(desk)
    desk.wait(4)
    desk.start("young", "young", role="editor")
    desk.wait(1)
    child(desk, grant, "k1")
    assert [desk.claim(role="editor").run_id for _ in range(2)] == ["k1", "young"]


def test_a_parents_events_tell_of_its_children(desk: Desk) -> None:
    grant = parent_of(desk, "k1")
    end(desk)
    wait(desk, grant, 1)
    assert desk.kinds(grant.run_id)[2:4] == ["child.started", "child.ended"]


def test_children_of_a_completed_parent_stay_known(desk: Desk) -> None:
    grant = parent_of(desk, "k1")
    desk.commit(grant, "complete", body="1")
    assert list(desk.see(grant.run_id).kids) == ["k1"]
    assert desk.store.command("PTTL", desk.keys.kids(grant.run_id)) > 0
    assert desk.see("k1").home == "ready", "they go on"


def asks(desk: Desk, grant: Grant, *call_ids: str, **more: Any) -> None:
    desk.suspend(grant, *(Suspended(call_id=one, **more) for one in call_ids))


def tree(desk: Desk) -> Grant:
    """Top waits for middle, which waits for bottom; gives the leased bottom."""
    top = parent_of(desk, "middle")
    wait(desk, top, 1)
    middle = desk.claim(role="editor")
    child(desk, middle, "bottom")
    wait(desk, middle, 1)
    return desk.claim(role="editor")


def test_what_a_child_asks_is_told_to_all_above_it(desk: Desk) -> None:
    asks(desk, tree(desk), "ok")
    top = desk.see("run1")
    (told,) = [event.fields for event in top.events if event.type == "child.asked"]
    assert (told["child"], told["path"], told["agent"]) == ("bottom", "middle bottom", "editor")
    assert told["data"] == '{"calls":[{"call_id":"c"}]}'
    assert top.asking == {"bottom": "middle bottom"}
    assert desk.see("middle").asking == {"bottom": "bottom"}
    assert (top.why, top.open) == ("child", 1), "it waits on"


@pytest.mark.parametrize("through", ["run1", "middle", "bottom"])
def test_an_answer_is_handed_down_from_wherever_it_is_given(desk: Desk, through: str) -> None:
    asks(desk, tree(desk), "ok", aliases=("ext", ""))
    assert desk.decide(through, "ext", "d1")
    assert not desk.decide(through, "ext", "d1"), "said again, it changes nothing"
    for other in ("run1", "middle", "bottom"):
        with pytest.raises(errors.AlreadyDecided):
            desk.decide(other, "ok", "d2")
    assert [(one.kind, one.entry_id) for one in desk.claim(role="editor").inbox] == [("decision", "d1")]
    assert desk.kinds("run1")[-1] == desk.kinds("middle")[-1] == "child.decided"
    assert desk.see("run1").home == desk.see("middle").home == "due", "nobody above was woken"


def test_one_of_several_that_ask_the_same_is_named(desk: Desk) -> None:
    top = parent_of(desk, "k1", "k2")
    wait(desk, top, 2)
    for _ in range(2):
        asks(desk, desk.claim(role="editor"), "ok")
    with pytest.raises(errors.AmbiguousCall, match="<run id>/<call id>"):
        desk.decide(top.run_id, "ok")
    assert desk.decide(top.run_id, "k2/ok")
    assert desk.claim(role="editor").run_id == "k2"
    assert desk.decide(top.run_id, "ok"), "only one asks it still"
    with pytest.raises(errors.AlreadyDecided):
        desk.decide(top.run_id, "k1/ok")
    with pytest.raises(errors.UnknownCall):
        desk.decide(top.run_id, "no")


def test_nobody_is_asked_through_a_child_that_has_ended(desk: Desk) -> None:
    asks(desk, tree(desk), "ok", "more")
    assert desk.decide("run1", "bottom/more")
    desk.cancel("middle")
    assert desk.see("bottom").status == "cancelled"
    assert desk.see("run1").asking == {}
    with pytest.raises(errors.UnknownCall):
        desk.decide("run1", "bottom/ok")
    with pytest.raises(errors.AlreadyDecided):
        desk.decide("run1", "bottom/more")


def test_a_default_in_time_is_told_above(desk: Desk) -> None:
    asks(desk, tree(desk), "ok", expires=after(5 * S), default="false")
    desk.wait(6)
    desk.sweep()
    assert desk.see("run1").events[-1].fields["expired"] == "1"
    assert desk.claim(role="editor").inbox[0].body is False


def test_a_childs_turns_are_seen_by_whoever_waits_for_it(desk: Desk) -> None:
    top = parent_of(desk, "k1")
    wait(desk, top, 1)
    before = desk.see(top.run_id).seq
    for _ in range(3):
        desk.commit(desk.claim(role="editor"))
    run = desk.see(top.run_id)
    assert [(one.type, one.n) for one in run.live] == [("child.turn", n) for n in (1, 2, 3)]
    assert run.seq == before, "nothing durable grows"


@pytest.mark.parametrize("move", ["fail", "dead"])
def test_a_run_that_fails_takes_its_children_with_it_but_for_detached_ones(desk: Desk, move: str) -> None:
    top = parent_of(desk, "k1")
    child(desk, top, "k2", detached="1")
    held = desk.claim(role="editor")
    desk.commit(top, move, body="{}")
    assert desk.see("k2").status == "queued"
    assert desk.see("k1").cancel == f"its parent was {'dead' if move == 'dead' else 'failed'}"
    desk.commit(held)
    assert desk.see("k1").status == "cancelled"


def test_a_run_whose_deadline_passes_takes_its_children_with_it(desk: Desk) -> None:
    desk.start(deadline=after(5 * S))
    top = desk.claim()
    child(desk, top, "k1")
    wait(desk, top, 1)
    desk.wait(6)
    desk.sweep()
    assert [desk.see(one).status for one in (top.run_id, "k1")] == ["failed", "cancelled"]


def test_a_retry_sends_back_who_ended_with_the_run(desk: Desk) -> None:
    top = parent_of(desk, "k1", "k2")
    end(desk)
    desk.commit(top, "dead", body="{}")
    assert [desk.see(one).status for one in ("k1", "k2")] == ["completed", "cancelled"]
    desk.retry(top.run_id)
    assert [desk.see(one).status for one in ("k1", "k2")] == ["completed", "queued"]
    told = [entry.body["run_id"] for entry in desk.claim().inbox]
    assert told == ["k1"], "the end that was none is taken back"
