"""Forks: a thread made from one version of another, with a run of its own (protocol 9)."""

import pytest

from techrevati.store import errors
from techrevati.store.calls import after
from techrevati.store.records import OnBusy
from tests.integration.store.desk import Desk, S


def grown(desk: Desk, turns: int = 3, thread: str = "essay") -> str:
    """A run that has taken turns: turn n appends message n and says state n."""
    run = desk.start(thread=thread).run_id
    for n in range(1, turns + 1):
        ends = ("complete", "1") if n == turns else ("continue", "")
        grant = desk.claim()
        desk.commit(
            grant, ends[0], body=ends[1], messages=[f'"{n}"'], state_kind="f" if n == 1 else "d", state=f'{{"v":{n}}}'
        )
    return run


def test_fork_keeps_messages_and_state_as_of_its_version(desk: Desk) -> None:
    grown(desk)
    made = desk.fork(2, to="fork", state='{"v":2}')
    fork = desk.thread("fork")
    assert fork.messages == ['"1"', '"2"']
    assert [(one.version, one.kind, one.state) for one in fork.versions] == [(1, "f", '{"v":2}')]
    assert (fork.active, fork.origin) == (made.run_id, "2 essay")
    grant = desk.claim()
    assert (grant.run_id, grant.thread.messages, grant.messages) == (made.run_id, 2, ['"1"', '"2"'])
    assert desk.kinds(made.run_id)[:2] == ["run.queued", "run.forked"]
    desk.commit(grant, "complete", body="1")


def test_source_and_fork_go_their_own_ways(desk: Desk) -> None:
    grown(desk)
    before = desk.thread()
    desk.fork(1, to="fork")
    assert desk.thread() == before
    desk.commit(desk.claim(), "complete", body="1", messages=['"theirs"'])
    desk.start()
    desk.commit(desk.claim(), "complete", body="1", messages=['"ours"'])
    assert desk.thread().messages == ['"1"', '"2"', '"3"', '"ours"']
    assert desk.thread("fork").messages == ['"1"', '"theirs"']
    desk.delete()
    assert desk.thread("fork").messages == ['"1"', '"theirs"'], "it holds what it needs"


def test_fork_at_zero_begins_with_an_empty_thread(desk: Desk) -> None:
    grown(desk)
    desk.fork(0, to="fork")
    fork = desk.thread("fork")
    assert (fork.version, fork.messages, fork.versions, fork.origin) == (0, [], [], "0 essay")


def test_fork_of_an_idle_thread_does_not_expire_with_it(desk: Desk) -> None:
    grown(desk)
    assert desk.store.command("PTTL", desk.keys.messages("acme", "essay")) > 0
    desk.fork(2, to="fork")
    for key in (desk.keys.messages("acme", "fork"), desk.keys.checkpoints("acme", "fork")):
        assert desk.store.command("PTTL", key) == -1


def test_fork_sees_what_its_version_saw_after_a_rollback(desk: Desk) -> None:
    grown(desk, 2)
    desk.start()
    desk.commit(desk.claim(), messages=['"undone"'])
    desk.start(on_busy=OnBusy.ROLLBACK)
    newest = desk.thread().versions[-1]
    assert newest.back_to == 2
    desk.fork(newest.version, to="fork")
    assert (desk.thread("fork").spans, desk.thread("fork").stored) == (newest.spans, 3)
    desk.fork(3, to="then")
    assert (desk.thread("then").spans, desk.thread("then").messages) == ("0:", ['"1"', '"2"', '"undone"'])


def test_fork_may_go_on_at_a_later_turn_and_begin_later(desk: Desk) -> None:
    grown(desk)
    run = desk.fork(2, turn=3, begin=after(5 * S), fields={"input": '"again"', "handed": '{"k":1}'}).run_id
    assert (desk.see(run).home, desk.see(run).why, desk.see(run).turn) == ("due", "start", 3)
    desk.wait(5)
    desk.sweep()
    grant = desk.claim()
    assert (grant.fields["turn"], grant.fields["input"], grant.fields["handed"]) == ("3", '"again"', '{"k":1}')


def test_fork_sent_twice_makes_one_thread(desk: Desk) -> None:
    grown(desk)
    first = desk.fork(2, run_id="mine", to="fork")
    again = desk.fork(2, run_id="mine", to="fork")
    assert (first.created, again.created, again.run_id) == (True, False, "mine")
    keyed = [desk.fork(2, idem="k", idem_key="k") for _ in range(2)]
    assert [one.created for one in keyed] == [True, False]
    assert keyed[0].run_id == keyed[1].run_id and keyed[0].thread_id == keyed[1].thread_id


@pytest.mark.parametrize("version", [4, 9])
def test_fork_at_a_version_that_never_was_is_refused(desk: Desk, version: int) -> None:
    grown(desk)
    before = desk.whole()
    with pytest.raises(errors.VersionGone, match=f"has no version {version} yet; fix: use one of 3"):
        desk.fork(version)
    assert desk.whole() == before


def test_fork_at_a_trimmed_version_is_refused(desk: Desk) -> None:
    run = desk.start().run_id
    for keep in ("", "", "3"):
        desk.commit(desk.claim(), state_kind="f", state="{}", keep_from=keep)
    assert [one.version for one in desk.thread().versions] == [3]
    with pytest.raises(errors.VersionGone, match="version 1 of thread 'essay' is not kept any more"):
        desk.fork(1, commit="whatever")
    desk.cancel(run)


def test_fork_of_another_version_than_was_read_is_refused(desk: Desk) -> None:
    grown(desk)
    with pytest.raises(errors.VersionGone):
        desk.fork(2, commit="1.other")


def test_fork_of_another_tenants_thread_is_refused(desk: Desk) -> None:
    grown(desk)
    before = desk.whole()
    with pytest.raises(errors.ThreadNotFound, match="'essay' of tenant 'zeta' is not known"):
        desk.fork(2, tenant="zeta")
    assert desk.whole() == before
