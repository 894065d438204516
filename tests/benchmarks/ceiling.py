"""What the store's scripts alone allow: no Celery, no agent, the same sessions as `speed`.

    python -m tests.benchmarks.ceiling --sessions 500 --turns 5

Two processes, each one asyncio loop with `coroutines` claimers.  No ticket is sent, for no pool is
registered.  What `speed` measures of ours lies below this by what tickets, the pool and the agent cost.

======  =======================================================================
apart   claim and commit are two scripts: two round trips a turn
fused   a commit claims the next turn in the same script: one round trip a turn
======  =======================================================================
"""

import argparse
import asyncio
import hashlib
import os
import time
from pathlib import Path

import msgspec

from techrevati.store import calls
from techrevati.store.aio import AsyncStore
from techrevati.store.calls import ClaimSpec, CommitSpec, StartSpec
from techrevati.store.keys import PartitionKeys, new_id
from techrevati.store.records import Grant
from techrevati.store.sync import SyncStore
from tests.benchmarks.harness import Arena, Cost, Meter, end_on_sigterm, interleave
from tests.benchmarks.plain_celery import DONE, STATE
from tests.benchmarks.report import Spread, machine, show_machine, table, write_json

READY = "bench:ready"
GO = "bench:go"
ROLE = "bench"
LEASE_US = 15_000_000


def keys(partition: int) -> PartitionKeys:
    return PartitionKeys("ceiling", partition)


class Claimer:
    """Claims turns of one partition and commits them, until told to stop."""

    def __init__(self, store: AsyncStore, partition: int, turns: int) -> None:
        self._store, self._turns, self._keys = store, turns, keys(partition)

    def claim(self) -> ClaimSpec:
        return ClaimSpec(
            role=ROLE,
            claim_id=os.urandom(4).hex(),
            worker=f"w{os.getpid()}",
            ttl_us=LEASE_US,
            from_ticket=False,
        )

    def commit(self, grant: Grant) -> CommitSpec:
        turn = int(grant.fields["turn"])
        state = msgspec.json.encode({"value": f"{turn:04d}{STATE[4:]}"}).decode()
        return CommitSpec(
            run_id=grant.run_id,
            token=grant.token,
            move="continue" if turn < self._turns else "complete",
            worker=f"w{os.getpid()}",
            body="" if turn < self._turns else f'{{"turns": {turn}}}',
            state_kind="f",
            state=state,
            keep_from=str(turn),
            bytes=len(state),
        )

    async def work(self, fused: bool) -> None:
        grant: Grant | None = None
        while True:
            if grant is None:
                grant = (await self._store.run(calls.claim(self._keys, self.claim()))).grant
                if grant is None:
                    await asyncio.sleep(0.005)
                    continue
            then = self.claim() if fused else None
            commit = self.commit(grant)
            done = await self._store.run(calls.commit(self._keys, commit, then))
            if commit.move == "complete":
                await self._store.command("RPUSH", DONE, commit.run_id)
            grant = done.grant


async def worker(url: str, fused: bool, turns: int, coroutines: int, partitions: int) -> None:
    """Run one process's claimers; it ends when it is killed."""
    store = AsyncStore(url)
    await store.command("RPUSH", READY, os.getpid())
    while not await store.command("EXISTS", GO):
        await asyncio.sleep(0.001)
    claimers = [Claimer(store, number % partitions, turns) for number in range(coroutines)]
    await asyncio.gather(*(claimer.work(fused) for claimer in claimers))


def measure(mode: str, options: argparse.Namespace) -> tuple[Cost, Cost]:
    """Give the cost of the starts, and of all the turns together."""
    with Arena() as arena:
        module = ("python", "-m", "tests.benchmarks.ceiling", "--worker", mode, "--url", arena.url)
        counts = ("--turns", str(options.turns), "--coroutines", str(options.coroutines))
        for number in range(options.processes):
            arena.spawn(f"claimer-{number}", *module, *counts, "--partitions", str(options.partitions))
        arena.wait(lambda: arena.redis.llen(READY) >= options.processes, what="claimers", timeout=30)
        with SyncStore(arena.url) as store:
            starting = Meter(arena)
            for number in range(options.sessions):
                start(store, number % options.partitions)
            starts = starting.read()
        turning = Meter(arena)
        arena.redis.set(GO, 1)
        arena.wait(lambda: arena.redis.llen(DONE) >= options.sessions, what="ends", timeout=120)
        turns = turning.read()
        if arena.redis.llen(DONE) != options.sessions:
            raise AssertionError("a session ended twice")
        return starts, turns


def start(store: SyncStore, partition: int) -> None:
    run_id = new_id(partition)
    payload = '{"session": "s", "turns": 5, "sleep": 0.0}'
    spec = StartSpec(
        run_id=run_id,
        tenant="default",
        thread_id=run_id,
        role=ROLE,
        agent=ROLE,
        payload_digest=hashlib.sha256(payload.encode()).hexdigest(),
        fields={"input": payload},
    )
    store.run(calls.start(keys(partition), spec))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--coroutines", type=int, default=64)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        fused = options.worker == "fused"
        asyncio.run(worker(options.url, fused, options.turns, options.coroutines, options.partitions))
        return
    end_on_sigterm()
    with Arena() as arena:
        facts = machine(arena.server_version())
    print(show_machine(facts), end="\n\n")
    costs: dict[str, list[tuple[Cost, Cost]]] = {"apart": [], "fused": []}
    for _, mode in interleave(costs, options.rounds):
        costs[mode].append(measure(mode, options))
    turns = options.sessions * options.turns
    rows = [
        [
            mode,
            Spread.of([turns / turning.seconds for _, turning in pairs]).show(),
            f"{Spread.of([turning.workers * 1000 / turns for _, turning in pairs]).median:.2f}",
            f"{Spread.of([turning.store * 1000 / turns for _, turning in pairs]).median:.2f}",
            Spread.of([options.sessions / starts.seconds for starts, _ in pairs]).show(),
            f"{Spread.of([starts.store * 1000 / options.sessions for starts, _ in pairs]).median:.2f}",
        ]
        for mode, pairs in costs.items()
    ]
    head = ["mode", "turns/s", "workers CPU s/1000", "store CPU s/1000", "starts/s", "store CPU s/1000 starts"]
    print(table(head, rows))
    write_json(
        options.json,
        {"benchmark": "ceiling", "options": vars(options), "machine": facts, "measured": time.time()}
        | {mode: [[a.asdict(), b.asdict()] for a, b in pairs] for mode, pairs in costs.items()},
    )


if __name__ == "__main__":
    main()
