"""Leases of one process: renewed in batches, lost on time, by one clock."""

from collections.abc import Sequence
from typing import Any, cast

from techrevati.fleet.leases import BATCH, Ending, Lease, Leases
from techrevati.store import calls
from techrevati.store.errors import StoreUnreachable
from techrevati.store.keys import PartitionKeys
from techrevati.store.sync import SyncStore

KEYS = [PartitionKeys("news", number) for number in range(2)]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Answers:
    """What a store would answer to renewals."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.asked: list[Sequence[Any]] = []
        self.away = False

    def run(self, call: calls.Call[list[int]]) -> list[int]:
        self.asked.append(call.args)
        if self.away:
            raise StoreUnreachable("redis://nowhere", "gone")
        return [self.codes.get(str(run_id), calls.RENEWED) for run_id in call.args[1::2]]


class Desk:
    def __init__(self) -> None:
        self.clock, self.store = Clock(), Answers()
        self.leases = Leases(cast(SyncStore, self.store), ttl=15, every=5, loop_stall=60, monotonic=self.clock)
        self.ended: list[tuple[str, Ending]] = []

    def hold(self, run_id: str, partition: int = 0, ends: float = 115.0) -> Lease:
        lease = Lease(run_id, f"t-{run_id}", KEYS[partition], ends, lambda why: self.ended.append((run_id, why)))
        self.leases.hold(lease)
        return lease


def test_renewal_counts_from_before_the_call() -> None:
    desk = Desk()
    lease = desk.hold("a")
    desk.clock.now = 105.0
    desk.leases.renew()
    assert lease.ends == 120.0 and desk.ended == []


def test_one_call_renews_a_partition_in_bounded_batches() -> None:
    desk = Desk()
    for number in range(BATCH + 1):
        desk.hold(f"r{number}")
    desk.hold("other", partition=1)
    desk.leases.renew()
    assert sorted((len(args) - 1) // 2 for args in desk.store.asked) == [1, 1, BATCH]


def test_lost_and_cancelled_turns_are_told_which() -> None:
    desk = Desk()
    desk.store.codes = {"a": calls.LOST, "b": calls.STOPPING}
    for run_id in "abc":
        desk.hold(run_id)
    desk.leases.renew()
    assert sorted(desk.ended) == [("a", Ending.LOST), ("b", Ending.CANCELLED)]


def test_a_lease_that_could_not_be_renewed_is_lost_on_time_not_before() -> None:
    desk = Desk()
    desk.hold("a")
    desk.store.away = True
    desk.clock.now = 114.9
    desk.leases.renew()
    assert desk.ended == []
    desk.clock.now = 115.0
    desk.leases.renew()
    assert desk.ended == [("a", Ending.LOST)]


def test_what_was_dropped_or_taken_again_is_left_alone() -> None:
    desk = Desk()
    first = desk.hold("a")
    second = desk.hold("a")  # claimed again by this very process
    desk.leases.drop(first)
    assert desk.leases.held() == [second] and len(desk.leases) == 1
    desk.leases.tell("a", Ending.DRAINED)
    desk.leases.tell("unknown", Ending.DRAINED)
    assert desk.ended == [("a", Ending.DRAINED)]
    desk.leases.drop(second)
    assert len(desk.leases) == 0
