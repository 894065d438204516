"""The doctor finds what is broken by hand, and is silent about a fleet at work."""

import threading
from collections.abc import Iterator

import pytest

from techrevati.store import calls, doctor, picture
from techrevati.store.calls import ClaimSpec, CommitSpec
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.keys import PartitionKeys
from techrevati.store.sync import SyncStore
from tests.integration.store.desk import Desk


@pytest.fixture
def broken(server: EmbeddedRedis, fleet_name: str) -> Iterator[Desk]:
    """A desk whose partition may end in disorder."""
    desk = Desk(server.url, fleet_name)
    with desk.store:
        yield desk


def kinds(desk: Desk) -> list[str]:
    found = doctor.check(desk.store, desk.keys.fleet, 4, pause=lambda _: None)
    return sorted({finding.kind for finding in found})


def test_a_fresh_fleet_is_healthy(broken: Desk) -> None:
    assert kinds(broken) == []


def test_a_run_lost_from_its_home_is_found(broken: Desk) -> None:
    run = broken.start().run_id
    broken.store.command("ZREM", broken.keys.ready("writer", "acme"), run)
    assert kinds(broken) == ["account", "home", "tenant"]


def test_a_run_in_two_homes_is_found(broken: Desk) -> None:
    run = broken.start().run_id
    broken.store.command("ZADD", broken.keys.due, 5, run)
    assert kinds(broken) == ["home"]


def test_a_token_without_a_lease_is_found(broken: Desk) -> None:
    run = broken.start().run_id
    broken.store.command("HSET", broken.keys.run(run), "token", "7.x")
    assert kinds(broken) == ["token"]


def test_a_lease_without_a_token_is_found(broken: Desk) -> None:
    broken.start()
    run = broken.claim().run_id
    broken.store.command("HSET", broken.keys.run(run), "token", "")
    assert kinds(broken) == ["status", "token"]


def test_a_wrong_account_is_found(broken: Desk) -> None:
    broken.start()
    broken.store.command("HINCRBY", broken.keys.tickets("writer"), "ready", 1)
    assert kinds(broken) == ["account"]


def test_a_line_behind_nothing_is_found(broken: Desk) -> None:
    broken.start()
    broken.start()
    broken.store.command("HSET", broken.keys.thread("acme", "essay"), "active", "")
    assert "line" in kinds(broken)


def test_an_unknown_run_in_an_index_is_found(broken: Desk) -> None:
    broken.store.command("ZADD", broken.keys.due, 5, "ghost")
    assert kinds(broken) == ["stranger"]


def test_a_forgotten_deadline_is_found(broken: Desk) -> None:
    run = broken.start(deadline="+5000000").run_id
    broken.store.command("ZREM", broken.keys.deadlines, run)
    assert kinds(broken) == ["deadline"]


def test_a_gap_in_the_events_is_found(broken: Desk) -> None:
    run = broken.start().run_id
    broken.commit(broken.claim(), "complete", body="1")
    broken.store.command("XDEL", broken.keys.events(run), "2-0")
    assert kinds(broken) == ["events"]


def test_a_key_without_owner_and_ttl_is_found(broken: Desk) -> None:
    run = broken.start().run_id
    broken.commit(broken.claim(), "complete", body="1")
    for key in (broken.keys.run(run), broken.keys.messages("acme", "gone"), broken.keys.claim("old")):
        broken.store.command("PERSIST", key)
        if not broken.store.command("EXISTS", key):
            broken.store.command("SET", key, "x")
    found = doctor.orphans(broken.store, broken.keys.fleet)
    assert [finding.kind for finding in found] == ["key"] * 3


def test_a_fleet_at_work_raises_no_false_alarm(server: EmbeddedRedis, fleet_name: str) -> None:
    keys, stop = PartitionKeys(fleet_name, 0), threading.Event()
    desk = Desk(server.url, fleet_name)
    desk.keys = keys
    for number in range(40):
        desk.start(thread=f"t{number}", tenant=f"tenant{number % 3}")

    def work(worker: str) -> None:
        with SyncStore(server.url) as store:
            while not stop.is_set():
                spec = ClaimSpec(role="writer", claim_id=desk.id(worker), worker=worker, ttl_us=15_000_000)
                if grant := store.run(calls.claim(keys, spec)).grant:
                    commit = CommitSpec(run_id=grant.run_id, token=grant.token, move="continue", worker=worker)
                    store.run(calls.commit(keys, commit))

    workers = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(3)]
    for worker in workers:
        worker.start()
    try:
        with SyncStore(server.url) as store:
            alarms = [doctor.check(store, fleet_name, 1, keys=True, pause=lambda _: None) for _ in range(5)]
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert alarms == [[]] * 5
    assert desk.well() == []
    desk.store.close()


def test_a_quick_picture_is_judged_like_a_whole_one(desk: Desk) -> None:
    desk.start()
    desk.start()
    desk.claim()
    quick = picture.take(desk.store, desk.keys)
    assert not quick.whole
    assert doctor.diagnose(quick) == doctor.diagnose(desk.whole()) == []
