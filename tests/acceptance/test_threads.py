"""Threads as their clients see them: pages, checkpoints, forks and deletion, with real workers."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from techrevati.fleet.aclient import AsyncClient
from techrevati.fleet.client import Client, Run
from techrevati.fleet.forking import ForkUnclear
from techrevati.fleet.listing import BadPageCursor
from techrevati.fleet.registry import UnknownRole
from techrevati.store import thread_calls
from techrevati.store.errors import RunNotFound, ThreadInUse, ThreadNotFound, VersionGone
from techrevati.store.records import RunRecord
from tests.acceptance.agents import FLEET
from tests.acceptance.support import ROOT, Cluster, eventually


def counted(client: Client, thread: str, turns: int = 4, **options: Any) -> Run:
    run = client.start("count.alpha", {"turns": turns}, thread_id=thread, **options)
    assert run.result(timeout=15) == list(range(1, turns + 1))
    return run


def cli(cluster: Cluster, *words: str) -> str:
    command = [sys.executable, "-m", "techrevati.cli", *words, "--fleet", FLEET, "--redis", cluster.redis.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


# Looking.


def test_thread_is_read_at_any_of_its_versions(client: Client) -> None:
    run = counted(client, "read")
    thread = client.thread("read")
    record = thread.status()
    assert (record.version, record.messages, record.active_run, record.forked_from) == (4, 5, "", None)
    assert [thread.state(at=at) for at in (0, 1, 3)] == [{}, {"turns": [1]}, {"turns": [1, 2, 3]}]
    assert thread.state() == {"turns": [1, 2, 3, 4]}
    assert [message["content"] for message in thread.messages(at=2).messages][1:] == ["turn 1", "turn 2"]
    kept = client.checkpoints("read")
    assert [(one.version, one.turn, one.run_id) for one in kept] == [(n, n, run.id) for n in (4, 3, 2, 1)]
    assert [one.at for one in kept] == sorted((one.at for one in kept), reverse=True)
    assert abs(kept[0].at - datetime.now(UTC).timestamp()) < 60
    assert [one.version for one in client.checkpoints("read", before=3, limit=1)] == [2]


def test_messages_come_in_pages(client: Client) -> None:
    counted(client, "paged", 8)
    thread, cursor, found, pages = client.thread("paged"), None, list[Any](), 0
    while True:
        page = thread.messages(after=cursor, limit=4)
        found, cursor, pages = found + page.messages, page.cursor, pages + 1
        if cursor is None:
            break
    assert (len(found), pages) == (9, 3)
    assert found == thread.messages().messages
    assert [message["content"] for message in found[1:]] == [f"turn {n}" for n in range(1, 9)]


def test_an_old_version_is_rebuilt_from_full_states_and_deltas(client: Client) -> None:
    counted(client, "long", 40)
    for at in (1, 15, 16, 17, 33, 40):
        assert client.thread("long").state(at=at) == {"turns": list(range(1, at + 1))}


def test_runs_come_in_pages_without_gaps_or_doubles(client: Client) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=1)
    made = client.start_many(
        [{"agent": "count.alpha", "input": {}, "tenant": f"pages{n % 2}", "thread_id": f"p{n % 5}"} for n in range(40)]
    )
    for run in made:
        run.result(timeout=20)
    cursor, found = None, list[RunRecord]()
    while True:
        page = client.runs(tenant="pages1", status="completed", created_after=begun, limit=7, after=cursor)
        found, cursor = found + page.runs, page.cursor
        if cursor is None:
            break
    assert sorted(one.run_id for one in found) == sorted(run.id for run in made[1::2])
    times = [one.created or 0 for one in found]
    assert times == sorted(times, reverse=True)
    assert client.runs(tenant="pages1", created_before=begun).runs == []
    mine = client.thread("p1", tenant="pages1").runs(limit=3)
    rest = client.thread("p1", tenant="pages1").runs(limit=100, after=mine.cursor)
    assert sorted(one.run_id for one in mine.runs + rest.runs) == sorted(run.id for run in made[1::10])
    assert {one.run_id for one in client.list_runs(thread_id="p1", tenant="pages1")} == {run.id for run in made[1::10]}
    with pytest.raises(BadPageCursor, match="pass the `cursor` of the page before"):
        client.runs(after="7")
    with pytest.raises(ValueError, match=r"created_after=.* has no time zone"):
        client.runs(created_after=datetime(2026, 1, 1))


# Forking.


def test_fork_goes_on_from_its_checkpoint_as_the_source_would_have(client: Client) -> None:
    run = counted(client, "forked")
    before = client.thread("forked").messages()
    fork = run.fork(at=2)
    assert fork.result(timeout=10) == [1, 2, 3, 4]
    record = fork.status()
    assert (record.turn, record.input) == (4, {"turns": 4})
    thread = client.thread(record.thread_id)
    assert thread.messages().messages == before.messages, "the opening message is there once"
    assert thread.status().forked_from == ("forked", 2)
    assert [event.data["turn"] for event in fork.events() if event.type == "turn.started"] == [3, 4]
    forked = next(event for event in fork.events() if event.type == "run.forked")
    assert forked.data == {"source": "forked", "version": 2}
    assert client.thread("forked").messages() == before
    assert client.thread("forked").status().version == 4


def test_fork_with_an_input_is_a_new_run_over_the_old_conversation(client: Client) -> None:
    run = counted(client, "fresh")
    fork = run.fork(at=2, input={"turns": 1})
    assert fork.result(timeout=10) == [1, 2, 1]
    said = client.thread(fork.status().thread_id).messages().messages
    assert [message["content"] for message in said[1:]] == ["turn 1", "turn 2", '{"turns":1}', "turn 1"]


def test_fork_of_a_fork_and_of_the_beginning(client: Client) -> None:
    first = counted(client, "again").fork(at=3)
    assert first.result(timeout=10) == [1, 2, 3, 4]
    for at in (1, None):  # version 1 of a fork is what it began with; its newest is its end
        second = first.fork(at=at)
        assert second.result(timeout=10) == ([1, 2, 3, 4] if at else [1, 2, 3, 4, 5])
    assert client.thread("again").fork(at=0).result(timeout=10) == [1, 2, 3, 4]


def test_fork_after_a_handoff_goes_on_with_its_target(client: Client) -> None:
    run = client.start("relay.alpha", {"hops": 3})
    path = run.result(timeout=15)
    for at in (1, 2, 3):
        fork = run.fork(at=at)
        first = next(event for event in fork.events() if event.type == "turn.started")
        assert (first.data["role"], first.data["turn"]) == (path[at].partition(".")[2], at + 1)
    assert fork.result(timeout=10) == path, "the last handoff is in the record, with its context"


def test_fork_while_the_source_is_at_work(cluster: Cluster, client: Client) -> None:
    run = client.start("count.alpha", {"turns": 40, "seconds": 0.05}, thread_id="moving")
    eventually(lambda: client.thread("moving").status().version >= 3, "three turns")
    forks = [run.fork(at=2) for _ in range(3)]
    assert [fork.result(timeout=20) for fork in forks] == [list(range(1, 41))] * 3
    assert run.result(timeout=20) == list(range(1, 41))


def test_fork_with_one_key_is_one_fork(client: Client) -> None:
    run = counted(client, "keyed")
    made = [run.fork(at=2, idempotency_key="k") for _ in range(2)]
    assert (made[0].id == made[1].id, made[0].created, made[1].created) == (True, True, False)


def test_what_cannot_be_forked_is_refused_with_the_fix(cluster: Cluster, client: Client) -> None:
    run = counted(client, "refused", tenant="one")
    with pytest.raises(VersionGone, match="thread 'refused' has no version 9 yet; fix: use one of 1 to 4"):
        run.fork(at=9)
    with pytest.raises(ThreadNotFound, match=r"thread 'refused' of tenant 'two' is not known; fix: check .* tenant"):
        client.thread("refused", tenant="two").fork(at=2)
    with pytest.raises(UnknownRole, match=r"role 'nobody' is unknown in fleet 'accept'; it has: .*count.alpha"):
        run.fork(at=2, agent="nobody")
    with pytest.raises(ValueError, match="at=-1 is refused"):
        run.fork(at=-1)
    client.store.command("DEL", cluster.keys(run.id).run(run.id))
    with pytest.raises(ForkUnclear, match=r"version 2 of thread 'refused' can be forked, but .*; fix: give input="):
        client.thread("refused", tenant="one").fork(at=2)
    assert client.thread("refused", tenant="one").fork(at=2, input={"turns": 1}, agent="count.alpha").result(10)
    assert client.thread("refused", tenant="one").delete()


def test_a_trimmed_version_is_refused_with_what_is_kept(private: Cluster) -> None:
    private.given |= {"keep_checkpoints": 20, "full_every": 4}
    private.redis.close()
    private.redis = type(private.redis)(options={"stream-node-max-entries": "4"})
    private.redis.start()
    private.coordinator(wait=False)
    private.worker("alpha")
    client = private.client()
    run = counted(client, "trimmed", 60)
    kept = [one.version for one in client.checkpoints("trimmed")]
    assert kept[-1] > 1
    with pytest.raises(VersionGone, match=r"version 2 .* is not kept any more; fix: use one of (\d+) to 60, and raise"):
        run.fork(at=2)
    assert run.fork(at=57).result(timeout=10) == list(range(1, 61))
    private.healthy(keys=True)


# Deleting.


def test_deleted_thread_is_gone_and_its_name_is_free(cluster: Cluster, client: Client) -> None:
    run = counted(client, "gone", idempotency_key="gone-1")
    thread = client.thread("gone")
    assert thread.delete()
    assert not thread.delete()
    for ask in (run.status, run.cancel, run.fork, lambda: next(run.events())):
        with pytest.raises(RunNotFound):
            ask()
    for read in (thread.status, thread.checkpoints, thread.messages, thread.state):
        with pytest.raises(ThreadNotFound):
            read()
    assert run.id not in {one.run_id for one in client.list_runs(limit=10_000)}
    again = counted(client, "gone", 1, idempotency_key="gone-1")
    assert again.id != run.id
    cluster.healthy(keys=True)


def test_busy_thread_is_deleted_by_force_only_and_its_turn_stops(cluster: Cluster, client: Client) -> None:
    run = client.start("hold.alpha", {"gate": "never"}, thread_id="busy")
    behind = client.start("count.alpha", {}, thread_id="busy")
    cluster.wait_told(f"hold {run.id}")
    with pytest.raises(ThreadInUse, match=f"active run {run.id}; fix: .* delete with force"):
        client.thread("busy").delete()
    assert client.thread("busy").delete(force=True)
    cluster.wait_told(f"stopped {run.id}")
    for one in (run, behind):
        with pytest.raises(RunNotFound):
            one.result(timeout=5)
    time_is_up = [key for key in client.store.command("KEYS", f"*{run.id}*") if not key.startswith("run:")]
    assert time_is_up == []
    cluster.healthy(keys=True)


def test_thread_of_many_runs_is_deleted_by_the_sweep_if_its_client_dies(cluster: Cluster, client: Client) -> None:
    made = client.start_many([{"agent": "count.alpha", "input": {}, "thread_id": "many"} for _ in range(90)])
    for run in made:
        run.result(timeout=30)
    keys = cluster.keys(made[0].id)
    done = client.store.run(thread_calls.delete(keys, "default", "many", limit=10))
    assert (done.forgotten, done.more) == (10, True)
    eventually(lambda: client.store.command("ZCARD", keys.drops) == 0, "the sweep finishes", 10)
    left = {one.run_id for one in client.list_runs(limit=10_000)} & {run.id for run in made}
    assert left == set()
    cluster.healthy(keys=True)


# The other faces.


def test_async_client_does_the_same(cluster: Cluster, client: Client) -> None:
    run = counted(client, "async", 3)

    async def walk() -> None:
        async with AsyncClient(fleet=FLEET, settings=cluster.settings) as other:
            thread = other.thread("async")
            assert (await thread.status()) == client.thread("async").status()
            assert (await thread.messages(limit=2)) == client.thread("async").messages(limit=2)
            assert (await thread.state(at=2)) == {"turns": [1, 2]}
            assert (await other.checkpoints("async")) == client.checkpoints("async")
            assert (await thread.runs()) == client.thread("async").runs()
            assert [one.run_id for one in (await other.runs(thread_id="async", limit=1)).runs] == [run.id]
            fork = await (await other.run(run.id)).fork(at=1)
            assert await fork.result(timeout=10) == [1, 2, 3]
            assert await other.thread((await fork.status()).thread_id).delete()
            with pytest.raises(RunNotFound):
                await fork.status()

    asyncio.run(walk())


def test_commands_list_fork_and_delete(cluster: Cluster, client: Client) -> None:
    run = counted(client, "shell", 3)
    listed = [json.loads(line) for line in cli(cluster, "checkpoints", "shell", "--json").splitlines()]
    assert [(one["version"], one["turn"], one["run_id"]) for one in listed] == [(n, n, run.id) for n in (3, 2, 1)]
    made = cli(cluster, "fork", run.id, "--at", "1")
    assert "  on thread " in made
    assert client.run(made.split()[0]).result(timeout=10) == [1, 2, 3]
    assert "turn 2" in cli(cluster, "thread", "shell", "--at", "2")
    assert "fix: use one of 1 to 3" in cli(cluster, "fork", run.id, "--at", "9")
    assert cli(cluster, "delete", "shell") == "deleted\n"
    assert cli(cluster, "delete", "shell") == "there is no such thread\n"
