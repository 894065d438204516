"""A claim that rides on a commit: one script instead of two, and the same answers (decision 0008)."""

import asyncio

import pytest

from techrevati.store import calls, errors
from techrevati.store.aio import AsyncStore
from techrevati.store.calls import CommitSpec
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.records import Claimed, Committed, Grant
from tests.integration.store.desk import Desk


def ending(desk: Desk, grant: Grant, move: str = "continue", role: str = "writer") -> calls.Call[Committed]:
    spec = CommitSpec(run_id=grant.run_id, token=grant.token, move=move, worker="w1", role=role, body="1")
    return calls.commit(desk.keys, spec)


def claiming(desk: Desk, claim_id: str, role: str = "writer") -> calls.Call[Claimed]:
    return calls.claim(desk.keys, desk.spec(claim_id, role=role, from_ticket=True))


async def test_a_claim_and_a_commit_that_go_out_together_are_one_script(desk: Desk, server: EmbeddedRedis) -> None:
    desk.start("first", thread="a")
    desk.commit(desk.claim())  # and the server knows the script
    first = desk.claim()
    desk.start("second", thread="b")
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    claimed, committed = await asyncio.gather(
        store.run(claiming(desk, "c2")), store.run(ending(desk, first, "complete"))
    )
    assert (store.rides, store.calls) == (1, 1)
    assert committed.first and committed.home == "" and committed.grant is None
    assert claimed.grant is not None and claimed.grant.run_id == "second"
    await store.close()


async def test_a_rider_that_may_not_take_what_is_left_hears_how_much_that_is(desk: Desk, server: EmbeddedRedis) -> None:
    desk.start("only", attempts=2)
    desk.claim()
    desk.wait(20)
    desk.sweep()  # its next attempt is the last: only one a time per process may take it
    assert desk.see("only").home == "last"
    desk.start("other", thread="b")
    held = desk.claim(lane_free=False)
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    spec = desk.spec("c9", lane_free=False, from_ticket=True)
    claimed, committed = await asyncio.gather(
        store.run(calls.claim(desk.keys, spec)), store.run(ending(desk, held, "complete"))
    )
    assert store.rides == 1
    assert committed.first
    assert (claimed.grant, claimed.ready) == (None, 1)
    await store.close()


async def test_a_refused_commit_does_not_cost_its_rider_the_claim(desk: Desk, server: EmbeddedRedis) -> None:
    desk.start("first", thread="a")
    lost = desk.claim()
    desk.wait(20)
    desk.sweep()
    desk.claim()  # somebody else has it now
    desk.start("second", thread="b")
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    claim = asyncio.create_task(store.run(claiming(desk, "c2")))
    with pytest.raises(errors.LeaseLost):
        await store.run(ending(desk, lost))
    assert store.rides >= 1
    grant = (await claim).grant
    assert grant is not None and grant.run_id == "second"
    await store.close()


async def test_only_a_claim_of_the_same_role_and_partition_rides(desk: Desk, server: EmbeddedRedis) -> None:
    desk.start("first", thread="a")
    first = desk.claim()
    desk.start("second", thread="b", role="editor")
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    claimed, committed = await asyncio.gather(
        store.run(claiming(desk, "c2", "editor")), store.run(ending(desk, first, "complete"))
    )
    assert store.rides == 0
    assert committed.first and claimed.grant is not None and claimed.grant.run_id == "second"
    await store.close()


async def test_a_commit_of_an_unnamed_role_carries_nobody(desk: Desk, server: EmbeddedRedis) -> None:
    desk.start("first", thread="a")
    first = desk.claim()
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    await asyncio.gather(store.run(claiming(desk, "c2")), store.run(ending(desk, first, role="")))
    assert store.rides == 0
    await store.close()


@pytest.mark.parametrize("trouble", ["flushed", "cut"])
async def test_both_get_their_answers_once_when_the_pair_is_sent_again(
    desk: Desk, server: EmbeddedRedis, trouble: str
) -> None:
    desk.start("first", thread="a")
    first = desk.claim()
    desk.start("second", thread="b")
    store = AsyncStore(server.url, now_us=lambda: desk.now)
    await store.command("PING")
    if trouble == "flushed":
        await store.command("SCRIPT", "FLUSH")
    claim = asyncio.create_task(store.run(claiming(desk, "c2")))
    commit = asyncio.create_task(store.run(ending(desk, first)))
    if trouble == "cut":
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # it is on its way, or about to be
        desk.store.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    claimed, committed = await claim, await commit
    assert committed.version == 1
    assert claimed.grant is not None and claimed.grant.run_id == "second"
    assert desk.role().out == 0
    again = desk.store.run(claiming(desk, "c2"))
    assert again.grant is not None and again.grant.token == claimed.grant.token
    await store.close()
