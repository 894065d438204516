"""Going back in a thread, and going on from there."""

import pytest

from techrevati.agent.state import GCounter, LatticeMerge, LatticeRegistry, Patch, Set, TrackedPatch
from techrevati.agent.threads import (
    CheckpointReason,
    Exact,
    HistoryGone,
    InMemoryThreadStore,
    InvalidId,
    Message,
    NoSuchVersion,
    Thread,
    ThreadChangeSet,
    fork,
    thread_at,
)
from techrevati.agent.threads.history import Dated


def turn(number: int) -> ThreadChangeSet:
    return ThreadChangeSet(
        run_id="r1",
        reason=CheckpointReason.ASSISTANT_TURN_COMMITTED,
        messages=(Message.user(str(number), id=f"m{number}"),),
        patches=(TrackedPatch(Patch((LatticeMerge(("n",), {f"turn-{number}": 1}),))),),
    )


ORIGIN = Thread(
    id="t", resource_id="u", state={"__run": {"id": "r1", "status": "running"}, "__tool_call_scope": {"c1": {}}}
)
CHANGES: list[Dated] = [(turn(number), 100 + number) for number in range(4)]
LATTICES = LatticeRegistry()
LATTICES.register(("n",), GCounter)


def test_a_version_is_the_origin_and_the_changes_up_to_it() -> None:
    past = thread_at(ORIGIN, CHANGES, 2)
    assert [message.content for message in past.messages] == ["0", "1"]
    assert past.metadata.version == 2 and past.metadata.updated_at == 101
    assert thread_at(ORIGIN, CHANGES, 0) == ORIGIN
    with pytest.raises(NoSuchVersion):
        thread_at(ORIGIN, CHANGES, 5)
    with pytest.raises(HistoryGone):
        thread_at(ORIGIN, CHANGES, -1)


def test_a_fork_goes_on_from_a_version() -> None:
    made = fork(thread_at(ORIGIN, CHANGES, 2), "fork", now_ms=500, registry=LATTICES)
    assert made.id == "fork" and made.resource_id == "u" and made.patches == () and made.metadata.version == 0
    assert made.state == {"__tool_call_scope": {"c1": {}}, "n": {"turn-0": 1, "turn-1": 1}}
    assert [message.id for message in made.messages] == ["m0", "m1"]
    assert made.metadata.extra == {"fork": {"thread_id": "t", "version": 2}} and made.metadata.created_at == 500
    with pytest.raises(InvalidId):
        fork(ORIGIN, "a/b", now_ms=1)


async def test_a_fork_and_its_source_go_their_own_ways() -> None:
    store = InMemoryThreadStore()
    await store.create(ORIGIN)
    for number in range(4):
        await store.append("t", turn(number), Exact(number))
    await store.create(fork(await store.load_at("t", 1), "fork", now_ms=1, registry=LATTICES))
    other = ThreadChangeSet(
        run_id="r2",
        reason=CheckpointReason.USER_MESSAGE,
        messages=(Message.user("other way"),),
        patches=(TrackedPatch(Patch((Set(("way",), "other"),))),),
    )
    await store.append("fork", other, Exact(0))
    source, made = await store.load_thread("t"), await store.load_thread("fork")
    assert source is not None and made is not None
    assert [message.content for message in made.messages] == ["0", "other way"]
    assert len(source.messages) == 4 and "way" not in source.rebuild_state(LATTICES)
    assert made.rebuild_state(LATTICES)["n"] == {"turn-0": 1}
