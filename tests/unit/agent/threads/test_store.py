"""§14.3: what every store of threads does; ours in memory and in a file do."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from techrevati.agent.state import Patch, Set, TrackedPatch
from techrevati.agent.threads import (
    ANY_VERSION,
    CheckpointReason,
    Exact,
    HistoryGone,
    InMemoryThreadStore,
    InvalidId,
    Message,
    MessageQuery,
    NoSuchVersion,
    Page,
    RunElsewhere,
    RunMeta,
    RunOrigin,
    RunQuery,
    RunStatus,
    SqliteThreadStore,
    Thread,
    ThreadChangeSet,
    ThreadExists,
    ThreadListQuery,
    ThreadMetadata,
    ThreadNotFound,
    ThreadStore,
    VersionConflict,
    apply_changeset,
)

Store = InMemoryThreadStore | SqliteThreadStore


class Clock:
    """Unix ms that pass by one at each look."""

    def __init__(self) -> None:
        self.now = 100

    def __call__(self) -> int:
        self.now += 1
        return self.now


def change(run_id: str = "r1", **fields: Any) -> ThreadChangeSet:
    fields.setdefault("messages", (Message.user("x"),))
    return ThreadChangeSet(**{"run_id": run_id, "reason": CheckpointReason.USER_MESSAGE, **fields})


def meta(status: RunStatus = RunStatus.RUNNING, **fields: Any) -> RunMeta:
    return RunMeta(**{"agent_id": "writer", "origin": RunOrigin.USER, "status": status, **fields})


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        made: Store = InMemoryThreadStore(clock=Clock())
        await made.create(Thread(id="t"))
        yield made
        return
    with SqliteThreadStore(tmp_path / "threads.db", clock=Clock()) as made:
        await made.create(Thread(id="t"))
        yield made


async def test_14_3_a_new_thread_has_version_0(store: Store) -> None:
    loaded = await store.load("t")
    assert loaded is not None and loaded.version == 0 == loaded.thread.metadata.version
    assert loaded.thread.metadata.created_at == 101
    with pytest.raises(ThreadExists, match="thread 't' is stored already"):
        await store.create(Thread(id="t"))


async def test_14_3_what_is_not_stored_is_none_or_refused(store: Store) -> None:
    assert await store.load("no") is None and await store.load_thread("no") is None
    for asked in (store.load_messages("no"), store.message_count("no"), store.append("no", change(), ANY_VERSION)):
        with pytest.raises(ThreadNotFound, match="thread 'no' is not stored"):
            await asked
    with pytest.raises(ThreadNotFound):
        await store.load_deltas("no", 0)


async def test_14_3_an_append_gives_the_next_version(store: Store) -> None:
    assert await store.append("t", change(), Exact(0)) == 1
    assert await store.append("t", change(), Exact(1)) == 2
    assert await store.append("t", change(), ANY_VERSION) == 3
    assert await store.message_count("t") == 3
    thread = await store.load_thread("t")
    assert thread is not None and thread.metadata.version == 3


async def test_14_3_a_stale_version_writes_nothing(store: Store) -> None:
    await store.append("t", change(), Exact(0))
    before = await store.load("t")
    with pytest.raises(VersionConflict) as caught:
        await store.append("t", change(run_id="r2", run_meta=meta()), Exact(0))
    assert (caught.value.expected, caught.value.actual) == (0, 1)
    assert await store.load("t") == before and await store.load_run("r2") is None


async def test_14_3_of_many_writers_at_one_version_one_wins(store: Store) -> None:
    def write(number: int) -> bool:
        try:
            asyncio.run(store.append("t", change(messages=(Message.user(str(number)),)), Exact(0)))
        except VersionConflict:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(write, range(100)))
    assert won.count(True) == 1
    page = await store.load_messages("t")
    assert [placed.message.content for placed in page.messages] == [str(won.index(True))]


async def test_14_3_writers_that_retry_all_get_in(store: Store) -> None:
    def write(number: int) -> None:
        async def again() -> None:
            while True:
                loaded = await store.load("t")
                assert loaded is not None
                try:
                    await store.append("t", change(messages=(Message.user(str(number)),)), Exact(loaded.version))
                    return
                except VersionConflict:
                    continue

        asyncio.run(again())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    loaded = await store.load("t")
    assert loaded is not None and loaded.version == 40
    assert sorted(int(message.content) for message in loaded.thread.messages) == list(range(40))


async def test_14_2_an_empty_change_is_not_written(store: Store) -> None:
    assert await store.append("t", change(messages=()), Exact(0)) == 0
    assert list(await store.load_deltas("t", 0)) == []
    with pytest.raises(VersionConflict):
        await store.append("t", change(messages=()), Exact(5))
    ended = change(messages=(), reason=CheckpointReason.RUN_FINISHED)
    assert await store.append("t", ended, Exact(0)) == 1


async def test_14_3_delete_is_idempotent_and_forgets_the_runs(store: Store) -> None:
    await store.append("t", change(run_meta=meta()), Exact(0))
    await store.delete("t")
    await store.delete("t")
    assert await store.load("t") is None and await store.load_run("r1") is None
    assert (await store.list_runs()).total == 0
    assert await store.create(Thread(id="t")) == 0


async def test_14_3_save_stores_a_thread_whole_and_bumps_the_version(store: Store) -> None:
    await store.append("t", change(run_meta=meta()), Exact(0))
    assert await store.save(Thread(id="t", state={"n": 1}, metadata=ThreadMetadata(created_at=7))) == 2
    loaded = await store.load("t")
    assert loaded is not None and loaded.version == 2 and loaded.thread.messages == ()
    assert loaded.thread.state == {"n": 1} and loaded.thread.metadata.created_at == 7
    assert await store.load_run("r1") is not None
    assert await store.append("t", change(), Exact(2)) == 3
    assert await store.save(Thread(id="new")) == 0


async def test_14_3_changes_since_a_version(store: Store) -> None:
    changes = [change(messages=(Message.user(str(number)),)) for number in range(3)]
    for number, one in enumerate(changes):
        await store.append("t", one, Exact(number))
    assert list(await store.load_deltas("t", 0)) == changes
    assert list(await store.load_deltas("t", 2)) == changes[2:] and list(await store.load_deltas("t", 3)) == []
    await store.save(Thread(id="t"))
    with pytest.raises(HistoryGone, match="kept from version 4"):
        await store.load_deltas("t", 3)


async def test_a_thread_can_be_seen_as_it_was(store: Store) -> None:
    for number in range(3):
        patch = TrackedPatch(Patch((Set(("n",), number),)))
        await store.append("t", change(messages=(Message.user(str(number)),), patches=(patch,)), Exact(number))
    past = await store.load_at("t", 2)
    assert [message.content for message in past.messages] == ["0", "1"] and past.rebuild_state() == {"n": 1}
    assert past.metadata.version == 2 and (await store.load_at("t", 0)).messages == ()
    assert await store.load_at("t", 3) == await store.load_thread("t")
    with pytest.raises(NoSuchVersion, match="no version 4; its newest is 3"):
        await store.load_at("t", 4)
    await store.save(past)
    with pytest.raises(HistoryGone):
        await store.load_at("t", 3)


@pytest.mark.parametrize("thread_id", ["", "../etc", "a/b", "a\\b", "..", "a\nb", "a\x00", "x" * 257, "a..b", "."])
async def test_14_3_ids_that_could_leave_their_place_are_refused(store: Store, thread_id: str) -> None:
    for write in (store.create(Thread(id=thread_id)), store.save(Thread(id=thread_id))):
        with pytest.raises(InvalidId):
            await write
    assert await store.list() == ["t"]


async def test_14_3_ids_of_every_other_kind_are_accepted(store: Store) -> None:
    for thread_id in ("task:bg_1", "sub-agent-r.1", "ünïcode", "a b", "x" * 256):
        await store.create(Thread(id=thread_id))


async def test_14_3_the_index_knows_a_run_from_its_first_change(store: Store) -> None:
    await store.append("t", change(run_meta=meta(parent_thread_id="p"), parent_run_id="r0"), Exact(0))
    record = await store.load_run("r1")
    assert record is not None and (record.thread_id, record.agent_id, record.status) == ("t", "writer", "running")
    assert (record.parent_run_id, record.parent_thread_id) == ("r0", "p")
    assert record.created_at == record.updated_at == 102


async def test_14_3_a_change_without_meta_only_shows_that_the_run_lives(store: Store) -> None:
    await store.append("t", change(), Exact(0))
    assert await store.load_run("r1") is None, "nothing was said about the run yet"
    await store.append("t", change(run_meta=meta()), Exact(1))
    before = await store.load_run("r1")
    await store.append("t", change(), Exact(2))
    after = await store.load_run("r1")
    assert before is not None and after is not None
    assert after.updated_at > before.updated_at and after.created_at == before.created_at
    assert (after.status, after.agent_id) == (before.status, before.agent_id)


async def test_14_3_later_meta_changes_the_state_of_the_run_and_never_its_parents(store: Store) -> None:
    await store.append("t", change(run_meta=meta(parent_thread_id="p"), parent_run_id="r0"), Exact(0))
    done = meta(
        RunStatus.DONE,
        agent_id="editor",
        parent_thread_id="other",
        termination_code="natural",
        termination_detail="said all",
    )
    await store.append("t", change(run_meta=done, parent_run_id="other"), Exact(1))
    record = await store.load_run("r1")
    assert record is not None
    assert (record.status, record.agent_id, record.termination_code) == ("done", "editor", "natural")
    assert (record.parent_run_id, record.parent_thread_id, record.termination_detail) == ("r0", "p", "said all")
    assert record.created_at == 102 and record.updated_at == 103


async def test_14_3_the_active_run_is_the_newest_that_is_not_done(store: Store) -> None:
    for number, (run, status) in enumerate([("a", RunStatus.WAITING), ("b", RunStatus.RUNNING), ("c", RunStatus.DONE)]):
        await store.append("t", change(run_id=run, run_meta=meta(status)), Exact(number))
    active = await store.active_run_for_thread("t")
    assert active is not None and active.run_id == "b"
    await store.append("t", change(run_id="b", run_meta=meta(RunStatus.DONE)), Exact(3))
    active = await store.active_run_for_thread("t")
    assert active is not None and active.run_id == "a", "a run that waits is active"
    assert await store.active_run_for_thread("no") is None


async def test_a_run_belongs_to_one_thread(store: Store) -> None:
    await store.create(Thread(id="other"))
    await store.append("t", change(run_meta=meta()), Exact(0))
    with pytest.raises(RunElsewhere, match="run 'r1' belongs to thread 't', not to 'other'"):
        await store.append("other", change(run_meta=meta()), Exact(0))
    assert await store.message_count("other") == 0


async def test_14_4_threads_are_listed_by_id(store: Store) -> None:
    await store.create(Thread(id="b", resource_id="u1", parent_thread_id="t"))
    await store.create(Thread(id="a", resource_id="u1"))
    assert await store.list_threads() == Page(("a", "b", "t"), 3, False)
    assert await store.list_threads(ThreadListQuery(limit=2)) == Page(("a", "b"), 3, True)
    assert await store.list_threads(ThreadListQuery(offset=2, limit=2)) == Page(("t",), 3, False)
    assert (await store.list_threads(ThreadListQuery(resource_id="u1"))).items == ("a", "b")
    assert (await store.list_threads(ThreadListQuery(resource_id="u1", parent_thread_id="t"))).items == ("b",)


async def test_14_3_all_ids_are_listed_page_by_page() -> None:
    store = InMemoryThreadStore()
    for number in range(205):
        await store.create(Thread(id=f"t{number:03}"))
    assert await store.list() == [f"t{number:03}" for number in range(205)]


async def test_14_4_runs_are_listed_for_a_thread_and_for_all(store: Store) -> None:
    await store.create(Thread(id="u"))
    await store.append("t", change(run_id="r2", run_meta=meta()), Exact(0))
    await store.append("u", change(run_id="r1", run_meta=meta()), Exact(0))
    assert [run.run_id for run in (await store.list_runs()).items] == ["r2", "r1"], "by time, then id"
    assert [run.run_id for run in (await store.list_runs(RunQuery(thread_id="u"))).items] == ["r1"]
    assert (await store.list_runs(RunQuery(thread_id="no"))).total == 0


async def test_14_3_a_simple_store_need_not_know_runs() -> None:
    class Simple(ThreadStore):
        async def load(self, thread_id: str) -> Any:
            return None

    simple = Simple()  # type: ignore[abstract]
    assert await simple.load_run("r") is None and await simple.list_runs() == Page((), 0, False)
    assert await simple.active_run_for_thread("t") is None and await simple.load_thread("t") is None


async def test_14_4_a_page_of_a_stored_thread(store: Store) -> None:
    await store.append("t", change(messages=tuple(Message.user(str(n)) for n in range(5))), Exact(0))
    page = await store.load_messages("t", MessageQuery(after=1, limit=2))
    assert [placed.cursor for placed in page.messages] == [2, 3] and page.has_more


async def test_14_3_versions_never_go_back(store: Store) -> None:
    await store.append("t", change(), Exact(0))
    assert await store.save(Thread(id="t", metadata=ThreadMetadata(version=0))) == 2
    assert await store.save(Thread(id="t", metadata=ThreadMetadata(version=9))) == 9
    assert await store.append("t", change(), Exact(9)) == 10
    assert await store.save(Thread(id="moved", metadata=ThreadMetadata(version=4))) == 4
    assert await store.create(Thread(id="copied", metadata=ThreadMetadata(version=4))) == 0


async def test_14_2_a_stored_thread_takes_changes_as_a_thread_does(store: Store) -> None:
    def tracked(number: int) -> TrackedPatch:
        return TrackedPatch(Patch((Set((f"n{number}",), number),)))

    said = Message.user("first", id="m1")
    first = Thread(id="u", resource_id="r", state={"a": 1}, patches=(tracked(0),), messages=(said,))
    changes = [
        change(messages=(said, Message.user("second", id="m2")), patches=(tracked(1),)),
        change(messages=(), snapshot={"b": 2}, patches=(tracked(2),)),
        change(messages=(Message.user("third", id="m3"),), patches=(tracked(3),)),
        change(messages=(), run_meta=meta(parent_thread_id="p")),
    ]
    await store.create(first)
    for version, one in enumerate(changes):
        await store.append("u", one, Exact(version))
    expected = [await store.load_at("u", 0)]
    assert expected[0].messages == (said,) and expected[0].rebuild_state() == {"a": 1, "n0": 0}
    for one in changes:
        expected.append(apply_changeset(expected[-1], one, now_ms=0))
    for version, wanted in enumerate(expected):
        found = await store.load_at("u", version)
        assert (found.state, found.patches, found.messages) == (wanted.state, wanted.patches, wanted.messages)
        assert found.metadata.version == version and found.resource_id == "r"
    loaded = await store.load("u")
    assert loaded is not None and loaded.thread.parent_thread_id == "p"
    assert (await store.list_threads(ThreadListQuery(parent_thread_id="p"))).items == ("u",)
    assert loaded.thread == await store.load_at("u", 4)
