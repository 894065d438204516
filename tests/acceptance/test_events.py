"""Following a run: ordered, gapless, resumable from any event, over faults."""

import subprocess
import sys
import threading

import pytest

from techrevati.fleet.client import Client
from techrevati.fleet.events import BadCursor
from techrevati.store.records import Event
from tests.acceptance.agents import FLEET, make_fleet
from tests.acceptance.support import ROOT, Cluster, eventually

READER = """
import sys
from techrevati.fleet.client import Client
client = Client(sys.argv[1], fleet=sys.argv[2])
for event in client.run(sys.argv[3]).events(after=sys.argv[4] or None):
    print(event.id, event.seq, event.n, event.type, flush=True)
"""


def test_resuming_at_every_event_misses_and_doubles_nothing(client: Client) -> None:
    run = client.start("count.alpha", {"turns": 3})
    run.result(timeout=10)
    whole = list(run.events())
    assert len({event.id for event in whole}) == len(whole) > 9
    for place, event in enumerate(whole):
        assert list(run.events(after=event.id)) == whole[place + 1 :]


def test_reader_killed_midway_is_replaced_without_a_gap(cluster: Cluster, client: Client) -> None:
    run = client.start("chat.alpha", {"turns": 10, "words": 3, "pace": 0.02})

    def reader(after: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", READER, cluster.redis.url, FLEET, run.id, after]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    first = reader("")
    assert first.stdout is not None
    lines = [first.stdout.readline() for _ in range(12)]
    first.kill()
    first.wait()
    first.stdout.close()
    second = reader(lines[-1].split()[0])
    rest, _ = second.communicate(timeout=20)
    lines += rest.splitlines()
    durable = [int(line.split()[1]) for line in lines if line.split()[2] == "0"]
    assert durable == list(range(1, len(durable) + 1))
    assert lines[-1].split()[3] == "run.completed"
    ids = [line.split()[0] for line in lines]
    assert len(set(ids)) == len(ids)


def test_deltas_stand_inside_their_turn(client: Client) -> None:
    run = client.start("chat.alpha", {"turns": 3, "words": 8, "pace": 0.02})
    turn, heard = 0, 0
    for event in run.events():
        if event.type == "turn.started":
            turn = event.data["turn"]
        if event.type == "text.delta":
            assert event.n > 0 and event.data["turn"] == turn
            heard += 1
    assert heard == 24


def test_model_text_is_streamed_while_the_turn_runs(client: Client) -> None:
    run = client.start("think.alpha", {"ask": "stream", "pace": 0.1})
    texts = [event.data["text"] for event in run.events() if event.type == "text.delta"]
    assert texts == ["so", "it", "is"]


def test_two_readers_see_the_same(client: Client) -> None:
    run = client.start("count.alpha", {"turns": 10, "seconds": 0.02})
    seen: list[list[Event]] = [[], []]
    readers = [threading.Thread(target=lambda mine=mine: mine.extend(run.events()), daemon=True) for mine in seen]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(20)
    assert seen[0] == seen[1] and seen[0][-1].type == "run.completed"


async def test_async_client_does_what_the_sync_one_does(cluster: Cluster) -> None:
    async with make_fleet("alpha", settings=cluster.settings).async_client() as client:
        run = await client.start("chat.alpha", {"turns": 2, "words": 2}, tenant="later")
        types = [event.type async for event in run.events()]
        assert types[0] == "run.queued" and types[-1] == "run.completed"
        assert await run.result(timeout=5) is None
        assert (await run.status()).status == "completed"
        assert [one.run_id for one in await client.list_runs(tenant="later")] == [run.id]
        last = [event async for event in run.events(follow=False)][-2]
        assert [event.type async for event in run.events(after=last.id)] == ["run.completed"]


def test_a_cursor_that_is_gone_gets_a_reset_and_a_snapshot(cluster: Cluster, client: Client) -> None:
    run = client.start("count.alpha", {"turns": 3})
    run.result(timeout=10)
    whole = list(run.events())
    foreign = f"{whole[4].seq}.0~another"
    events = list(run.events(after=foreign))
    assert [event.type for event in events] == ["stream_reset"]
    assert events[0].data["snapshot"]["status"] == "completed" and events[0].data["snapshot"]["output"] == [1, 2, 3]
    with cluster.raw() as redis:
        redis.xtrim(cluster.keys(run.id).events(run.id), minid=f"{whole[6].seq}-0", approximate=False)
    assert [event.type for event in run.events(after=whole[2].id)] == ["stream_reset"]
    assert [event.type for event in run.events()] == ["stream_reset"]
    with pytest.raises(BadCursor, match="'soon' is refused: pass the id"):
        next(run.events(after="soon"))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_reading_goes_on_over_a_restart_of_redis(private: Cluster, asynchronous: bool) -> None:
    private.coordinator(wait=False)
    private.worker("alpha")
    client = private.client("alpha")
    run = client.start("count.alpha", {"turns": 25, "seconds": 0.1})
    seen: list[Event] = []
    ended = threading.Event()

    def read() -> None:
        seen.extend(run.events())
        ended.set()

    if not asynchronous:
        threading.Thread(target=read, daemon=True).start()
        eventually(lambda: len(private.told("count")) > 5, "some turns")
        private.redis.restart()
        assert ended.wait(30)
    else:
        async with make_fleet("alpha", settings=private.settings).async_client() as other:
            restarted = False
            async for event in (await other.run(run.id)).events():
                seen.append(event)
                if event.type == "counted" and event.data["turn"] == 6 and not restarted:
                    restarted = True
                    private.redis.restart()
    durable = [event.seq for event in seen if event.n == 0]
    assert durable == list(range(1, len(durable) + 1))
    assert seen[-1].type == "run.completed"
    assert [event.data["turn"] for event in seen if event.type == "counted"] == list(range(1, 26))
    private.healthy()
