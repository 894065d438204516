"""§14.1 and §14.2: threads, messages, and what a change does to a thread."""

from typing import Any

import msgspec
import pytest

from techrevati.agent.state import (
    GCounter,
    Increment,
    LatticeMerge,
    LatticeRegistry,
    Op,
    Patch,
    Set,
    StateRegistry,
    TrackedPatch,
)
from techrevati.agent.state.errors import NoSuchPatch
from techrevati.agent.threads import (
    CheckpointReason,
    Loaded,
    Message,
    Role,
    RunMeta,
    RunOrigin,
    RunRecord,
    RunRequest,
    RunStatus,
    Thread,
    ThreadChangeSet,
    ThreadMetadata,
    ToolCall,
    Visibility,
    apply_changeset,
    new_id,
    prepare,
    public_thread,
)
from techrevati.agent.threads.ids import uuid7


def tracked(*ops: Op) -> TrackedPatch:
    return TrackedPatch(Patch(ops))


def change(**fields: Any) -> ThreadChangeSet:
    return ThreadChangeSet(**{"run_id": "r1", "reason": CheckpointReason.ASSISTANT_TURN_COMMITTED, **fields})


def counted(times: int) -> Thread:
    return Thread(id="t", state={"n": 0}, patches=tuple(tracked(Increment(("n",), 1)) for _ in range(times)))


def test_14_1_a_thread_is_its_state_and_the_patches_since() -> None:
    thread = counted(3)
    assert thread.rebuild_state() == {"n": 3} and thread.state == {"n": 0}
    folded = thread.snapshot()
    assert folded.state == {"n": 3} and folded.patches == () and folded.rebuild_state() == {"n": 3}
    assert thread.needs_snapshot(3) and not thread.needs_snapshot(4)


def test_14_1_replay_goes_back_to_a_patch() -> None:
    assert [counted(3).replay_to(index) for index in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
    with pytest.raises(NoSuchPatch):
        counted(3).replay_to(3)
    with pytest.raises(NoSuchPatch):
        counted(0).replay_to(0)


def test_14_1_joins_are_replayed_by_their_lattice() -> None:
    registry = LatticeRegistry()
    registry.register(("n",), GCounter)
    patches = (tracked(LatticeMerge(("n",), {"c1": 1})), tracked(LatticeMerge(("n",), {"c2": 2})))
    assert Thread(id="t", patches=patches).rebuild_state(registry) == {"n": {"c1": 1, "c2": 2}}


def test_14_1_messages_leave_out_what_is_not_set() -> None:
    message = Message.user("hi", id="m1")
    assert msgspec.json.encode(message) == b'{"id":"m1","role":"user","content":"hi"}'
    call = Message.assistant("", (ToolCall("c1", "search", {"q": "x"}),), id="m2").within("r1", 0)
    assert msgspec.json.decode(msgspec.json.encode(call)) == {
        "id": "m2",
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c1", "name": "search", "arguments": {"q": "x"}}],
        "metadata": {"run_id": "r1", "step_index": 0},
    }
    hidden = Message.tool("done", "c1", visibility=Visibility.INTERNAL)
    again = msgspec.json.decode(msgspec.json.encode(hidden), type=Message)
    assert again == hidden and again.is_internal and again.role is Role.TOOL
    assert (call.run_id, call.step_index, message.run_id, message.step_index) == ("r1", 0, None, None)
    assert Message.system("rules").role is Role.SYSTEM


def test_14_1_ids_sort_by_their_time() -> None:
    ids = [uuid7(now, random) for now, random in ((1, 1 << 73), (2, 0), (1 << 47, 5))]
    assert ids == sorted(ids) and all(text[14] == "7" and text[19] in "89ab" for text in [*ids, new_id()])
    assert len({new_id() for _ in range(1000)}) == 1000
    assert uuid7(0x017F22E279B0, 0xCC3 << 62 | 0x18C4DC0C0C07398F) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_14_2_messages_append_and_known_ids_are_skipped() -> None:
    first, second = Message.user("a", id="m1"), Message.user("b", id="m2")
    thread = apply_changeset(Thread(id="t", messages=(first,)), change(messages=(first, second, second)), now_ms=5)
    assert [message.content for message in thread.messages] == ["a", "b"]


def test_14_2_patches_append() -> None:
    thread = apply_changeset(counted(1), change(patches=(tracked(Increment(("n",), 5)),)), now_ms=5)
    assert len(thread.patches) == 2 and thread.rebuild_state() == {"n": 6}


def test_14_2_a_snapshot_replaces_the_state_and_clears_the_patches() -> None:
    thread = apply_changeset(counted(3), change(snapshot={"n": 9}), now_ms=5)
    assert thread.state == {"n": 9} and thread.patches == ()


def test_14_2_a_snapshot_stands_for_the_patches_of_its_own_change() -> None:
    both = change(snapshot={"n": 4}, patches=(tracked(Increment(("n",), 1)),))
    assert apply_changeset(counted(3), both, now_ms=5).rebuild_state() == {"n": 4}, "the patch is in it already"


def test_14_2_a_change_dates_and_numbers_the_thread() -> None:
    thread = apply_changeset(counted(0), change(), now_ms=5)
    assert (thread.metadata.version, thread.metadata.updated_at, thread.metadata.version_timestamp) == (1, 5, 5)
    assert apply_changeset(thread, change(), now_ms=9).metadata.version == 2
    assert counted(0).metadata.version == 0, "the thread given is as it was"


def test_14_2_the_parent_is_set_once() -> None:
    meta = RunMeta("a", RunOrigin.SUBAGENT, RunStatus.RUNNING, parent_thread_id="p1")
    thread = apply_changeset(counted(0), change(run_meta=meta), now_ms=1)
    other = msgspec.structs.replace(meta, parent_thread_id="p2")
    assert apply_changeset(thread, change(run_meta=other), now_ms=2).parent_thread_id == "p1"


def test_14_2_what_is_empty_is_known_and_the_end_of_a_run_never_is() -> None:
    assert change().is_empty and not change(reason=CheckpointReason.RUN_FINISHED).is_empty
    assert not change(messages=(Message.user("x"),)).is_empty and not change(snapshot={}).is_empty
    assert not change(patches=(tracked(Set(("a",), 1)),)).is_empty and not change(actions=({},)).is_empty


def test_14_2_reasons_are_stored_in_pascal_case() -> None:
    reasons = ["UserMessage", "AssistantTurnCommitted", "ToolResultsCommitted", "RunFinished"]
    assert [reason.value for reason in CheckpointReason] == reasons


def test_14_2_changes_survive_the_wire() -> None:
    meta = RunMeta("writer", RunOrigin.AG_UI, RunStatus.DONE, termination_code="natural")
    whole = change(
        parent_run_id="r0",
        run_meta=meta,
        messages=(Message.user("hi"),),
        patches=(tracked(Set(("a",), 1)),),
        actions=({"state_type_name": "Cart"},),
        snapshot={"a": 1},
    )
    wire = msgspec.json.encode(whole)
    assert msgspec.json.decode(wire, type=ThreadChangeSet) == whole
    assert msgspec.json.decode(wire)["run_meta"] == {
        "agent_id": "writer",
        "origin": "ag_ui",
        "status": "done",
        "termination_code": "natural",
    }
    assert msgspec.json.encode(change()) == b'{"run_id":"r1","reason":"AssistantTurnCommitted"}'


def test_5_5_clients_see_no_run_ids_no_patches_and_no_internal_messages() -> None:
    thread = Thread(
        id="t",
        messages=(
            Message.user("hi", id="m1").within("r1", 0),
            Message.system("secret", id="m2", visibility=Visibility.INTERNAL),
        ),
        state={"__run": {"id": "r1", "status": "running"}},
        patches=(tracked(Set(("a",), 1)),),
    )
    shown = public_thread(thread)
    assert shown["state"] == {"__run": {"status": "running"}, "a": 1} and "patches" not in shown
    assert shown["messages"] == [{"id": "m1", "role": "user", "content": "hi", "metadata": {"step_index": 0}}]
    assert thread.state["__run"]["id"] == "r1"


def test_14_what_is_stored_keeps_its_names() -> None:
    """Threads are read by later releases: a name that changes here needs a way to read the old one."""
    thread = Thread(
        id="t",
        resource_id="u",
        parent_thread_id="p",
        messages=(Message.user("hi", id="m1"),),
        state={"n": 1},
        patches=(tracked(Set(("n",), 2)),),
        metadata=ThreadMetadata(created_at=1, updated_at=2, version=3, version_timestamp=2, extra={"title": "Tides"}),
    )
    assert msgspec.json.decode(msgspec.json.encode(thread)) == {
        "id": "t",
        "resource_id": "u",
        "parent_thread_id": "p",
        "messages": [{"id": "m1", "role": "user", "content": "hi"}],
        "state": {"n": 1},
        "patches": [{"patch": {"ops": [{"op": "set", "path": ["n"], "value": 2}]}}],
        "metadata": {
            "created_at": 1,
            "updated_at": 2,
            "version": 3,
            "version_timestamp": 2,
            "extra": {"title": "Tides"},
        },
    }
    run = RunRecord("r", "t", "writer", RunOrigin.AI_SDK, RunStatus.DONE, 1, 2, termination_code="natural")
    assert msgspec.json.decode(msgspec.json.encode(run)) == {
        "run_id": "r",
        "thread_id": "t",
        "agent_id": "writer",
        "origin": "ai_sdk",
        "status": "done",
        "created_at": 1,
        "updated_at": 2,
        "termination_code": "natural",
    }
    assert [origin.value for origin in RunOrigin] == ["user", "subagent", "ag_ui", "ai_sdk", "a2a", "internal"]
    assert [role.value for role in Role] == ["system", "user", "assistant", "tool"]
    request = msgspec.convert(
        {"agent_id": "writer", "initial_decisions": [{"target_id": "c", "decision_id": "d", "action": "resume"}]},
        RunRequest,
    )
    assert request.initial_decisions[0].target_id == "c" and request.origin is RunOrigin.USER


def test_5_4_an_ended_runs_state_can_be_read_until_the_next_is_prepared() -> None:
    ended = change(
        reason=CheckpointReason.RUN_FINISHED, snapshot={"__run": {"id": "r1", "status": "done"}, "draft": {}}
    )
    thread = apply_changeset(counted(0), ended, now_ms=1)
    assert thread.rebuild_state() == {"__run": {"id": "r1", "status": "done"}, "draft": {}}
    ready = prepare(RunRequest(agent_id="a", thread_id="t", run_id="r2"), Loaded(thread, 1), StateRegistry(), now_ms=2)
    assert ready.document["__run"] == {"id": "r2", "status": "running", "updated_at": 2}
