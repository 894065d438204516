"""Sub-agents: started by the holder of a lease, and what their parents wait for (protocol 1, 4, 9)."""

from typing import Any

import pytest

from techrevati.store import errors
from techrevati.store.calls import after
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
