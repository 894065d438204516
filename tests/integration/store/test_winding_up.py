"""The end of a run that is cancelled while it waits, and whose agent has hooks for it."""

from techrevati.store.calls import Suspended
from tests.integration.store.desk import Desk


def waiting(desk: Desk, *, pool: bool = True) -> str:
    """Give a run that waits for an answer, in a pool that is alive."""
    if pool:
        desk.beat()
    run = desk.start(winds="1").run_id
    desk.suspend(desk.claim(), Suspended(call_id="ok"))
    return run


def test_it_has_one_more_turn(desk: Desk) -> None:
    run = waiting(desk)
    assert desk.cancel(run) == "queued"
    grant = desk.claim()
    assert (grant.run_id, grant.fields["cancel"]) == (run, "enough")
    desk.commit(grant)
    assert desk.see(run).status == "cancelled"
    assert desk.kinds(run)[-4:] == ["run.cancelling", "turn.started", "turn.committed", "run.cancelled"]


def test_said_twice_it_ends_at_once(desk: Desk) -> None:
    run = waiting(desk)
    assert [desk.cancel(run), desk.cancel(run)] == ["queued", "cancelled"]


def test_without_a_pool_it_ends_at_once(desk: Desk) -> None:
    assert desk.cancel(waiting(desk, pool=False)) == "cancelled"


def test_a_run_that_never_had_a_turn_ends_at_once(desk: Desk) -> None:
    desk.beat()
    assert desk.cancel(desk.start(winds="1").run_id) == "cancelled"


def test_its_children_are_stopped_before_it_ends(desk: Desk) -> None:
    desk.beat()
    run = desk.start(winds="1").run_id
    grant = desk.claim()
    desk.start("kid", "sub-agent-kid", role="editor", parent=run)
    desk.suspend(grant, Suspended(call_id="ok"))
    desk.cancel(run)
    assert (desk.see(run).status, desk.see("kid").status) == ("queued", "cancelled")


def test_a_worker_that_dies_at_it_leaves_it_to_others_for_as_many_times_as_any_turn(desk: Desk) -> None:
    run = waiting(desk)
    desk.cancel(run)
    for attempt in (1, 2):
        desk.claim()
        desk.wait(16)
        desk.sweep()
        assert (desk.see(run).status, desk.see(run).attempt) == ("queued", attempt)
    desk.claim()
    desk.wait(16)
    desk.sweep()
    assert desk.see(run).status == "cancelled"


def test_its_grace_begins_when_it_is_claimed(desk: Desk) -> None:
    run = waiting(desk)
    desk.cancel(run, grace=10)
    desk.wait(60)
    grant = desk.claim()
    assert desk.renew(grant) == [2]
    desk.wait(9)
    desk.sweep()
    assert desk.see(run).status == "running"
    desk.wait(2)
    desk.sweep()
    assert desk.see(run).status == "queued", "its holder was too slow"
    assert desk.renew(grant) == [0]


def test_a_worker_that_drains_gives_it_back(desk: Desk) -> None:
    run = waiting(desk)
    desk.cancel(run)
    desk.release(desk.claim())
    assert desk.see(run).status == "queued"
    assert desk.claim().fields["cancel"] == "enough"


def test_after_a_handoff_it_is_the_new_agent_that_counts(desk: Desk) -> None:
    desk.beat()
    run = desk.start(winds="1").run_id
    desk.commit(desk.claim(), "handoff", target="editor", body="{}")
    desk.route(run, 1, "place", role="editor", agent="editor")
    assert desk.cancel(run) == "cancelled"
