"""§14.5: what is stored before a run starts."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from techrevati.agent.state import Patch, Set, StateRegistry, StateScope, StateSpec, TrackedPatch
from techrevati.agent.threads import (
    CheckpointReason,
    Exact,
    InMemoryThreadStore,
    InvalidId,
    LineageConflict,
    Loaded,
    Message,
    PreparedRun,
    RunMeta,
    RunMode,
    RunOrigin,
    RunRequest,
    RunStatus,
    Thread,
    prepare,
)


class Draft(StateSpec):
    PATH = ("draft",)
    SCOPE = StateScope.RUN
    text: str = ""

    def reduce(self, action: str) -> None:
        self.text = action


STATES = StateRegistry([Draft])
WAITING = {"__tool_call_scope": {"c1": {"suspended_call": {"call_id": "c1"}}}}


def ids() -> Iterator[str]:
    return (f"id-{number}" for number in count(1))


def asked(
    thread: Thread | None = None, *, version: int = 4, mode: RunMode = RunMode.TASK, **fields: Any
) -> PreparedRun:
    made = ids()
    loaded = None if thread is None else Loaded(thread, version)
    request = RunRequest(agent_id="writer", **fields)
    return prepare(request, loaded, STATES, now_ms=50, mode=mode, make_id=lambda: next(made))


def old(**fields: Any) -> Thread:
    return Thread(**{"id": "t", "state": {"topic": "tides"}, **fields})


def test_14_5_missing_ids_are_made() -> None:
    ready = asked()
    assert (ready.thread_id, ready.run_id) == ("id-1", "id-2")
    assert ready.create is not None and ready.create.id == "id-1" and ready.precondition == Exact(0)


def test_14_5_given_ids_are_kept_by_a_task() -> None:
    ready = asked(thread_id="t", run_id="r", parent_run_id="pr", parent_thread_id="p")
    assert (ready.thread_id, ready.run_id, ready.change.run_id) == ("t", "r", "r")
    assert ready.change.parent_run_id == "pr" and ready.create is not None and ready.create.parent_thread_id == "p"
    assert ready.change.run_meta == RunMeta("writer", RunOrigin.USER, RunStatus.RUNNING, "p")


def test_14_5_a_dialog_gets_a_run_id_of_ours_no_lineage_and_no_place_in_the_index() -> None:
    ready = asked(mode=RunMode.DIALOG, thread_id="t", run_id="r", parent_run_id="pr", parent_thread_id="p")
    assert ready.run_id == "id-1" and ready.change.parent_run_id is None and ready.change.run_meta is None
    assert ready.create is not None and ready.create.parent_thread_id is None


@pytest.mark.parametrize("fields", [{"thread_id": "../x"}, {"run_id": "a\nb"}, {"thread_id": ""}, {"run_id": ""}])
def test_14_5_ids_that_cannot_be_stored_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidId):
        asked(**fields)


def test_14_5_a_new_thread_begins_with_the_state_given() -> None:
    ready = asked(state={"topic": "tides"}, resource_id="user-7")
    assert ready.create is not None and ready.create.state == {"topic": "tides"}
    assert ready.create.resource_id == "user-7" and ready.change.snapshot is None
    assert ready.document["topic"] == "tides"


def test_14_5_an_old_threads_state_is_replaced_by_a_snapshot_in_the_same_change() -> None:
    thread = old(patches=(TrackedPatch(Patch((Set(("draft",), {"text": "x"}),))),))
    ready = asked(thread, thread_id="t", state={"topic": "moon"}, run_id="r")
    assert ready.create is None and ready.change.patches == ()
    assert ready.change.snapshot == ready.document
    assert ready.document == {"topic": "moon", "__run": {"id": "r", "status": "running", "updated_at": 50}}


def test_14_5_without_a_state_the_old_one_stays() -> None:
    ready = asked(old(), thread_id="t")
    assert ready.document["topic"] == "tides" and ready.change.snapshot is None


def test_14_5_the_runtimes_own_keys_are_not_the_clients_to_say() -> None:
    thread = old(state={**WAITING, "topic": "tides"})
    given = {"topic": "moon", "__tool_call_scope": {}, "__run": {"id": "forged"}}
    assert asked(thread, thread_id="t", state=given).document["__tool_call_scope"] == WAITING["__tool_call_scope"]
    fresh = asked(state=given)
    assert fresh.create is not None and fresh.create.state == {"topic": "moon"}


def test_14_5_messages_that_are_known_are_dropped() -> None:
    thread = old(messages=(Message.user("a", id="m1"), Message.tool("done", "c1", id="m2")))
    inbound = (
        Message.user("a", id="m1"),
        Message.user("b", id="m3"),
        Message.user("b again", id="m3"),
        Message.tool("done again", "c1", id="m4"),
        Message.tool("other", "c2", id="m5"),
        Message.tool("other again", "c2", id="m6"),
    )
    ready = asked(thread, thread_id="t", messages=inbound)
    assert [message.id for message in ready.messages] == ["m3", "m5"] and ready.change.messages == ready.messages


def test_14_5_messages_belong_to_the_run() -> None:
    ready = asked(run_id="r", messages=(Message.user("hi", metadata={"lang": "en"}),))
    assert ready.messages[0].metadata == {"lang": "en", "run_id": "r"}


def test_14_5_a_thread_has_one_parent() -> None:
    with pytest.raises(LineageConflict, match="child of 'p', and 'q' was given"):
        asked(old(parent_thread_id="p"), thread_id="t", parent_thread_id="q")
    asked(old(parent_thread_id="p"), thread_id="t", parent_thread_id="p")
    asked(old(parent_thread_id="p"), thread_id="t")
    late = asked(old(), thread_id="t", parent_thread_id="p")
    assert late.change.run_meta is not None and late.change.run_meta.parent_thread_id == "p"


def test_14_5_a_dialog_may_not_be_asked_for_its_lineage() -> None:
    asked(old(parent_thread_id="p"), thread_id="t", parent_thread_id="q", mode=RunMode.DIALOG)


def test_14_5_one_change_has_messages_cleanup_and_the_runs_start() -> None:
    thread = old(state={**WAITING, "topic": "tides", "draft": {"text": "x"}, "__run": {"id": "r0", "status": "done"}})
    ready = asked(thread, thread_id="t", run_id="r", messages=(Message.user("hi"),))
    assert ready.change.reason is CheckpointReason.USER_MESSAGE and ready.precondition == Exact(4)
    assert ready.document == {"topic": "tides", "__run": {"id": "r", "status": "running", "updated_at": 50}}
    (patch,) = ready.change.patches
    assert [(type(op).__name__, op.path) for op in patch.patch.ops] == [
        ("Delete", ("__run",)),
        ("Delete", ("draft",)),
        ("Delete", ("__tool_call_scope",)),
        ("Set", ("__run",)),
    ]
    assert patch.source == "prepare" and patch.timestamp == 50


def test_14_5_a_run_of_decisions_only_keeps_what_waits() -> None:
    assert asked(old(state=dict(WAITING)), thread_id="t").document["__tool_call_scope"] == WAITING["__tool_call_scope"]
    answer = (Message.tool("true", "c9"),)
    assert "__tool_call_scope" in asked(old(state=dict(WAITING)), thread_id="t", messages=answer).document


def test_14_5_a_user_message_that_is_known_abandons_nothing() -> None:
    said = Message.user("hi", id="m1")
    thread = old(state=dict(WAITING), messages=(said,))
    assert "__tool_call_scope" in asked(thread, thread_id="t", messages=(said,)).document
    assert "__tool_call_scope" not in asked(thread, thread_id="t", messages=(Message.user("new"),)).document


def test_5_4_what_a_crashed_run_left_in_patches_is_cleaned() -> None:
    crashed = TrackedPatch(Patch((Set(("draft",), {"text": "half"}), Set(("__tool_call_scope", "c1"), {}))))
    ready = asked(old(patches=(crashed,)), thread_id="t", run_id="r", messages=(Message.user("hi"),))
    assert ready.document.keys() == {"topic", "__run"}


async def test_14_5_what_is_prepared_can_be_stored_and_is_what_it_says() -> None:
    store = InMemoryThreadStore()
    first = asked(thread_id="t", state={"topic": "tides"}, messages=(Message.user("hi"),))
    assert first.create is not None
    await store.create(first.create)
    await store.append("t", first.change, first.precondition)
    loaded = await store.load("t")
    assert loaded is not None and loaded.thread.rebuild_state(STATES.lattices) == first.document
    second = prepare(RunRequest(agent_id="writer", thread_id="t", state={"topic": "moon"}), loaded, STATES, now_ms=60)
    await store.append("t", second.change, second.precondition)
    loaded = await store.load("t")
    assert loaded is not None and loaded.version == 2 and loaded.thread.rebuild_state() == second.document
    assert (await store.list_runs()).total == 2
