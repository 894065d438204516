"""Deletion: nothing of a thread is left, and nothing brings it back (protocol 3, 9)."""

from typing import Any

import pytest

from techrevati.store import calls, errors
from techrevati.store.calls import Suspended
from tests.integration.store.desk import TTL, Desk


def lived(desk: Desk, thread: str = "essay") -> str:
    """A run with everything a run may leave behind."""
    run = desk.start(thread=thread, idem=f"key-{thread}", deadline="+60000000").run_id
    grant = desk.claim()
    desk.store.run(calls.step_begin(desk.keys, run, grant.token, "pay", "rerun"))
    desk.store.run(calls.live_append(desk.keys, run, grant.token, 10, 60_000, [("text", '"a"')]))
    desk.steer(run, "~quiet")
    desk.suspend(grant, Suspended(call_id="c1", expires="+9000000"), messages=['"m"'], state_kind="f", state="{}")
    return run


def left(desk: Desk, *names: str) -> list[str]:
    """Give the keys that still carry one of the names, but for the tombstones of runs."""
    found = [key for name in names for key in desk.keys_like(f"*{desk.keys.fleet}*{name}*")]
    return [key for key in found if desk.store.command("TYPE", key) != "hash" or not _tombstone(desk, key)]


def _tombstone(desk: Desk, key: str) -> bool:
    fields = desk.store.command("HGETALL", key)
    return bool(fields[0] == "gone" and len(fields) == 2 and 0 < desk.store.command("PTTL", key) <= 60_000)


def test_nothing_of_a_deleted_thread_is_left(desk: Desk) -> None:
    run = lived(desk)
    waiting = desk.start(idem="other", messages=False).run_id
    kinds = {key.partition(":")[0] for key in left(desk, "essay", run)}
    assert kinds >= {"run", "events", "live", "inbox", "calls", "decided", "msgs", "ckpt", "line", "runsof"}
    done = desk.delete(force=True)
    assert (done.known, done.forgotten, done.more) == (True, 2, False)
    assert left(desk, "essay", run, waiting, "idem", "drop") == []
    whole = desk.whole()
    assert not any((whole.runs, whole.threads, whole.due, whole.deadlines, whole.created, whole.ended, whole.idem))


def test_deleting_what_is_not_there_is_no_error(desk: Desk) -> None:
    assert not desk.delete("nobody").known
    lived(desk)
    assert [desk.delete(force=True).known for _ in range(2)] == [True, False]


def test_a_busy_thread_is_not_deleted_without_force(desk: Desk) -> None:
    run = lived(desk)
    before = desk.whole()
    with pytest.raises(errors.ThreadInUse, match=f"active run {run}; fix: .*cancel it, or delete with force"):
        desk.delete()
    assert desk.whole() == before
    desk.cancel(run)
    assert desk.delete().known


def test_who_holds_a_deleted_run_is_refused_and_makes_no_key(desk: Desk) -> None:
    run = desk.start().run_id
    grant = desk.claim()
    desk.delete(force=True)
    asked: list[calls.Call[Any]] = [
        calls.release(desk.keys, run, grant.token),
        calls.step_end(desk.keys, run, grant.token, [("k", "1")]),
        calls.live_append(desk.keys, run, grant.token, 10, 1000, [("text", '"a"')]),
        calls.inbox_put(desk.keys, run, "e", "steer", "", "1"),
        calls.retry(desk.keys, run),
        calls.commit(desk.keys, calls.CommitSpec(run_id=run, token=grant.token, move="complete", worker="w1")),
    ]
    for call in asked:
        with pytest.raises(errors.RunNotFound):
            desk.store.run(call)
    assert desk.store.run(calls.renew(desk.keys, TTL, [(run, grant.token)])) == [calls.LOST]
    assert not desk.start(run).created, "the start was sent again, and its reply is all it gets"
    assert left(desk, "essay") == []
    assert [key for key in left(desk, run) if not key.startswith("claim:")] == []


def test_a_new_thread_of_the_name_has_nothing_to_do_with_the_old_one(desk: Desk) -> None:
    ended = desk.start().run_id
    desk.commit(desk.claim(), "fail", body="{}", messages=['"old"'])
    for _ in range(2):
        desk.start()
    assert desk.delete(force=True, limit=1).more
    fence = desk.start().run_id
    assert desk.thread().messages == []
    for old in (ended, fence):
        with pytest.raises((errors.RunNotFound, errors.NotRetriable)):
            desk.retry(old)
    while desk.delete("nothing", limit=1).more:
        pass
    assert list(desk.whole().runs) == list(desk.thread().runs) == [fence]


def test_a_large_thread_is_finished_by_the_sweep(desk: Desk) -> None:
    for _ in range(300):
        desk.start()
        desk.commit(desk.claim(), "complete", body="1")
    done = desk.delete()
    assert (done.forgotten, done.more) == (128, True)
    assert desk.keys_like(f"*{desk.keys.fleet}*essay*") == []
    assert desk.well() == [], "what is left to forget is in order meanwhile"
    assert desk.sweep().next_us == desk.now, "there is more to do at once"
    assert desk.sweep().next_us is None
    assert desk.whole().runs == {}


def test_a_waiting_parent_hears_that_its_childs_thread_was_deleted(desk: Desk) -> None:
    parent = desk.start().run_id
    grant = desk.claim()
    desk.start("kid", thread="sub-agent-kid", parent=parent)
    desk.commit(grant, "sleep", when="+60000000")
    desk.delete("sub-agent-kid", force=True)
    (entry,) = desk.claim().inbox
    assert (entry.kind, entry.body) == ("child", {"run_id": "kid", "status": "cancelled"})


def test_threads_of_sub_agents_go_with_their_parents(desk: Desk) -> None:
    parent = desk.start().run_id
    grant = desk.claim()
    for kid, above in (("kid", parent), ("grandkid", "kid")):
        desk.start(kid, thread=f"sub-agent-{kid}", role="editor", parent=above)
    desk.commit(desk.claim(role="editor"), "complete", body="1", messages=['"theirs"'])
    desk.claim(role="editor")
    desk.commit(grant, "complete", body="1")
    desk.delete(force=True)
    assert left(desk, "essay", "sub-agent", parent, "kid") == []
    assert desk.whole().runs == {}


def test_other_threads_and_tenants_keep_what_is_theirs(desk: Desk) -> None:
    lived(desk, "poem")
    kept = desk.thread("poem")
    desk.start(tenant="zeta", role="editor")
    lived(desk)
    desk.delete(force=True)
    assert desk.thread("poem") == kept
    assert desk.thread(tenant="zeta").active
