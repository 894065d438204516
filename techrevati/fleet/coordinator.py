"""The coordinator: places handoffs, sweeps what is due, publishes how much waits.

    lease partitions ─▶ every 50 ms: heads of due ─▶ sweep those that are
                     └▶ bell or look ─▶ routes ─▶ decide (pure) ─▶ run_route
    the first partition's ─▶ every second: statistics, reservations that nobody settles

Any number may run.  A partition's lease only says who sweeps it; placing is fenced by the hop, so whoever hears
the bell may do it.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from techrevati.fleet import registry
from techrevati.fleet.cards import Card
from techrevati.fleet.codec import encode
from techrevati.fleet.limit_duties import gates_seen, write_off
from techrevati.fleet.routing import HopLimits, Place, Refuse, Standing, Wait, decide
from techrevati.fleet.settings import Settings
from techrevati.fleet.sharing import share
from techrevati.store import calls
from techrevati.store.aio import AsyncStore
from techrevati.store.budgets import AsyncBudget
from techrevati.store.errors import StoreError
from techrevati.store.keys import PartitionKeys, coordinator_queue, meta_key, roles_key
from techrevati.store.records import decode_json, pairs
from techrevati.store.scripts import PROTOCOL
from techrevati.store.wire import Ring
from techrevati.telemetry.metrics import GateGauges

log = logging.getLogger(__name__)

MEASURED = 5.0
"""Seconds between two looks at the fleet's gates, where metrics are exported."""
TICK = 0.05
"""Seconds between two looks at the heads of `due`: how late a timer may fire."""


def members_key(fleet: str) -> str:
    """Hash: coordinator -> when it counts as gone (us)."""
    return f"coordinators:{{{fleet}}}"


def stats_key(fleet: str) -> str:
    """Hash: role -> JSON of depth, age, running, places; what an autoscaler reads."""
    return f"stats:{{{fleet}}}"


@dataclass(slots=True)
class Done:
    """What a coordinator has done since it started."""

    placed: int = 0
    refused: int = 0
    waiting: int = 0
    expired: int = 0
    dead: int = 0
    swept: int = 0
    written_off: int = 0


@dataclass(slots=True)
class Coordinator:
    """One replica; `run` until `stop` is called."""

    fleet: str
    settings: Settings
    cards: Mapping[str, Card] = field(default_factory=dict)
    ring: Ring | None = None
    gauges: GateGauges | None = None
    monotonic: Callable[[], float] = time.monotonic
    name: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{os.urandom(3).hex()}")
    done: Done = field(default_factory=Done)
    held: set[int] = field(init=False, default_factory=set)
    _store: AsyncStore = field(init=False)
    _bell: AsyncStore = field(init=False)
    _keys: list[PartitionKeys] = field(init=False, default_factory=list)
    _stopping: asyncio.Event = field(init=False)
    _quiet_until: float = field(init=False, default=0.0)
    _server: str = field(init=False, default="")
    _failures: int = field(init=False, default=0)
    _swept_at: dict[int, float] = field(init=False, default_factory=dict)
    _places: dict[str, int] = field(init=False, default_factory=dict)

    async def run(self) -> None:
        """Coordinate until `stop`; a store that is away is waited for."""
        self._stopping = asyncio.Event()
        self._store = AsyncStore(self.settings.redis_url, patience=5.0, ring=self.ring)
        # The bell blocks its connection; a reply may take as long as the pop waits.
        self._bell = AsyncStore(self.settings.redis_url, patience=5.0)
        await self._open()
        if not self._keys:  # stopped while it waited for its store
            await self._hang_up()
            return
        log.info("coordinator %s of %s: %d partitions", self.name, self.fleet, len(self._keys))
        tasks = [asyncio.create_task(work()) for work in self._duties()]
        try:
            await self._stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._leave()

    def _duties(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        measure = () if self.gauges is None else (self._measure,)
        return self._share, self._tick, self._listen, self._publish, self._write_off, *measure

    def stop(self) -> None:
        """End `run`; on its loop."""
        self._stopping.set()

    async def _open(self) -> None:
        pinned = "partitions" in self.settings.model_fields_set
        while not self._stopping.is_set():
            try:
                commands = registry.opening(self.fleet, self.settings.partitions)
                declared = registry.declare(self.fleet, self.cards.values())
                replies = await self._store.commands([*commands, *declared])
            except StoreError as error:
                log.warning("waiting for the store: %s", error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), 1.0)
                continue
            count = registry.opened(self.fleet, replies, self.settings.partitions, pinned=pinned)
            self._keys = registry.partitions_of(self.fleet, count)
            return

    async def _leave(self) -> None:
        with contextlib.suppress(StoreError):
            await asyncio.gather(
                *(self._store.run(calls.partition_lease(self._keys[number], self.name, 0)) for number in self.held)
            )
            await self._store.command("HDEL", members_key(self.fleet), self.name)
        await self._hang_up()

    async def _hang_up(self) -> None:
        await self._store.close()
        await self._bell.close()

    @contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """Let one round of one duty fail without ending the duty."""
        try:
            yield
        except StoreError as error:
            log.warning("%s: %s", what, error)
        except Exception:
            log.exception("%s met an error", what)

    # -- who sweeps what ---------------------------------------------------------------------------

    async def _share(self) -> None:
        lease = self.settings.partition_lease
        while True:
            with self._surviving("sharing partitions"):
                await self._share_once(round(lease * 1e6))
            await asyncio.sleep(lease / 4)

    async def _share_once(self, ttl_us: int) -> None:
        key, now_us = members_key(self.fleet), time.time_ns() // 1000
        _, flat = await self._store.commands([("HSET", key, self.name, now_us + ttl_us), ("HGETALL", key)])
        members = pairs(flat)
        gone = [name for name, until in members.items() if int(until) < now_us - ttl_us]
        if gone:
            await self._store.command("HDEL", key, *gone)
        alive = [name for name, until in members.items() if int(until) >= now_us]
        take, give = share(len(self._keys), alive, self.name, sorted(self.held))
        for number in give:
            self.held.discard(number)
            await self._store.run(calls.partition_lease(self._keys[number], self.name, 0))
        wanted = sorted(self.held) + take
        answers = await asyncio.gather(
            *(self._store.run(calls.partition_lease(self._keys[number], self.name, ttl_us)) for number in wanted)
        )
        held = {number for number, answer in zip(wanted, answers, strict=True) if answer.held}
        if len(held) < len(take) + len(self.held):
            # Someone else has what we wanted; take what nobody has, beyond our share if need be.
            rest = [number for number in range(len(self._keys)) if number not in held and number not in wanted]
            fair = -(-len(self._keys) // max(1, len({*alive, self.name})))
            for number in rest[: max(0, fair - len(held))]:
                if (await self._store.run(calls.partition_lease(self._keys[number], self.name, ttl_us))).held:
                    held.add(number)
        if held != self.held:
            log.info("coordinator %s sweeps partitions %s", self.name, sorted(held))
        self.held = held

    # -- sweeping ----------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            with self._surviving("sweeping"):
                await self._tick_once()
            await asyncio.sleep(TICK)

    async def _tick_once(self) -> None:
        numbers = sorted(self.held)
        if not numbers:
            return
        reads: list[tuple[calls.Arg, ...]] = [("TIME",)]
        for number in numbers:
            keys = self._keys[number]
            reads.append(("ZRANGE", keys.due, 0, 0, "WITHSCORES"))
            reads.append(("ZRANGE", keys.deadlines, 0, 0, "WITHSCORES"))
            reads.append(("ZCARD", keys.routes))
        (secs, micros), *heads = await self._store.commands(reads)
        now_us, now = int(secs) * 1_000_000 + int(micros), self.monotonic()
        await self._watch_server(now)
        due: list[int] = []
        for index, number in enumerate(numbers):
            first, deadline, routes = heads[3 * index : 3 * index + 3]
            least = min((float(head[1]) for head in (first, deadline) if head), default=float("inf"))
            late = now - self._swept_at.get(number, 0.0) >= self.settings.sweep_interval
            if late or (least <= now_us and (now >= self._quiet_until or now - self._swept_at[number] > 0.25)):
                due.append(number)
            if routes and late:
                await self.place(number)
        await asyncio.gather(*(self._sweep(number, now) for number in due))

    async def _sweep(self, number: int, now: float) -> None:
        self._swept_at[number] = now
        expire = now >= self._quiet_until
        patience = round(self.settings.ticket_patience * 1e6)
        for _ in range(16):  # a backlog is worked off in bounded scripts
            swept = await self._store.run(calls.sweep(self._keys[number], expire=expire, patience_us=patience))
            self.done.swept += swept.moved
            self.done.expired += swept.expired
            self.done.dead += swept.dead
            if swept.expired:
                log.warning("partition %d: %d leases ran out, %d runs are dead", number, swept.expired, swept.dead)
            if swept.moved < 128:
                return

    async def _watch_server(self, now: float) -> None:
        """After a loss of Redis, or another server behind the name, holders get one TTL to renew."""
        if self._store.failures != self._failures or not self._server:
            self._failures = self._store.failures
            info = await self._store.command("INFO", "server")
            server = next(line[7:].strip() for line in info.splitlines() if line.startswith("run_id:"))
            key = meta_key(self.fleet)
            known = await self._store.command("HGET", key, "server")
            first = not self._server and known in (None, server)
            if server != known:
                await self._store.command("HSET", key, "server", server)
            self._server = server
            if not first:
                self._quiet_until = now + self.settings.lease_ttl
                log.warning("Redis was away: no lease expires for %.0f s", self.settings.lease_ttl)

    # -- placing -----------------------------------------------------------------------------------

    async def _listen(self) -> None:
        queue = coordinator_queue(self.fleet)
        while True:
            with self._surviving("placing handoffs"):
                rung = await self._bell.command("BRPOP", queue, 1)
                if rung is not None and int(rung[1]) < len(self._keys):
                    await self.place(int(rung[1]))
                continue
            await asyncio.sleep(0.5)

    async def place(self, number: int) -> None:
        """Place the handoffs of one partition."""
        keys = self._keys[number]
        standing = await self._store.command("ZRANGE", keys.routes, 0, 127)
        if not standing:
            return
        fields = ("agent", "target", "hops", "handed")
        found = await self._store.commands([("HMGET", keys.run(run_id), *fields) for run_id in standing])
        cards = await self._known({target for _, target, _, _ in found if target})
        places = await self._live(keys, {card.role for card in cards.values()})
        limits = HopLimits(self.settings.hop_limit, self.settings.ping_pong_limit)
        for run_id, (agent, target, hops, handed) in zip(standing, found, strict=True):
            if not hops:
                continue
            trail = tuple(decode_json(handed).get("trail", ())) if handed else ()
            decision = decide(Standing(run_id, agent or "", target or "", int(hops), trail), cards, places, limits)
            await self._act(keys, run_id, int(hops), decision)

    async def _act(self, keys: PartitionKeys, run_id: str, hop: int, decision: Any) -> None:
        match decision:
            case Place(agent, role):
                self.done.placed += 1
                winds = "1" if (card := self.cards.get(agent)) is not None and card.winds_up else ""
                call = calls.route(keys, run_id, hop, "place", role=role, agent=agent, why=winds)
            case Wait(wait, why):
                self.done.waiting += 1
                log.warning("run %s waits: %s", run_id, why)
                call = calls.route(keys, run_id, hop, "wait", when=calls.after(wait * 1e6), why=why)
            case Refuse(kind, message):
                self.done.refused += 1
                log.error("run %s fails: %s", run_id, message)
                error = encode({"type": kind, "message": message}, "error", 1 << 20)
                call = calls.route(keys, run_id, hop, "fail", why=error)
        await self._store.run(call)

    async def _known(self, targets: set[str]) -> Mapping[str, Card]:
        if not targets <= self.cards.keys():
            self.cards = registry.cards_of(await self._store.command("HGETALL", roles_key(self.fleet)))
        return self.cards

    async def _live(self, keys: PartitionKeys, roles: set[str]) -> dict[str, int]:
        ordered = sorted(roles)
        (secs, _), *pools = await self._store.commands([("TIME",), *(("HGETALL", keys.pool(role)) for role in ordered)])
        now_us = int(secs) * 1_000_000
        return {
            role: sum(registry.live_places(pairs(pool), now_us).values())
            for role, pool in zip(ordered, pools, strict=True)
        }

    # -- what waits --------------------------------------------------------------------------------

    async def _publish(self) -> None:
        while True:
            with self._surviving("publishing statistics"):
                if 0 in self.held:  # one replica speaks for the fleet: whoever sweeps the first partition
                    stats = await fleet_stats(self._store, self._keys)
                    rows: list[calls.Arg] = []
                    for role, row in stats.items():
                        rows += (role, json.dumps(row))
                    if rows:
                        await self._store.commands(
                            [("HSET", stats_key(self.fleet), *rows), ("EXPIRE", stats_key(self.fleet), 60)]
                        )
                    await self._raise_minimum()
            await asyncio.sleep(1.0)

    async def _raise_minimum(self) -> None:
        """Refuse older callers once every live worker speaks more than the minimum."""
        meta, workers = meta_key(self.fleet), registry.workers_key(self.fleet)
        minimum, flat = await self._store.commands([("HGET", meta, "protocol"), ("HGETALL", workers)])
        now = time.time()
        spoken: list[int] = []
        for name, text in pairs(flat).items():
            card = json.loads(text)
            if card["until"] < now - 3600:
                await self._store.command("HDEL", workers, name)
            elif card["until"] >= now:
                spoken.append(int(card["protocol"]))
        if spoken and min(spoken) > int(minimum or PROTOCOL):
            lowest = min(spoken)
            await self._store.commands([("HSET", keys.clock, "min", lowest) for keys in self._keys])
            await self._store.command("HSET", meta, "protocol", lowest)
            log.info("the fleet's minimal protocol is %d now", lowest)

    # -- gates and budgets -------------------------------------------------------------------------

    async def _measure(self) -> None:
        assert self.gauges is not None
        while True:
            with self._surviving("looking at gates"):
                self.gauges.show(await gates_seen(self._store, self.fleet) if 0 in self.held else ())
            await asyncio.sleep(MEASURED if 0 in self.held else 0.25)

    async def _write_off(self) -> None:
        budget = AsyncBudget(self._store, self.fleet)
        while True:
            with self._surviving("writing off reservations"):
                # After a loss of Redis, holders get their time to settle, too.
                if 0 in self.held and self.monotonic() >= self._quiet_until and (off := await write_off(budget)):
                    self.done.written_off += off
                    if self.gauges is not None:
                        self.gauges.written_off(off)
            await asyncio.sleep(1.0)


async def fleet_stats(store: AsyncStore, keys: list[PartitionKeys]) -> dict[str, dict[str, float]]:
    """Give what waits and runs, per role: depth, age of the oldest (s), live places, tickets out."""
    seen = await store.commands([("SMEMBERS", one.roles) for one in keys])
    roles = sorted({role for names in seen for role in names})
    (secs, _), *rest = await store.commands(
        [
            ("TIME",),
            *(
                command
                for role in roles
                for one in keys
                for command in (
                    ("HMGET", one.tickets(role), "ready", "out", "since"),
                    ("HGETALL", one.pool(role)),
                )
            ),
        ]
    )
    now_us, stats = int(secs) * 1_000_000, dict[str, dict[str, float]]()
    for index, role in enumerate(roles):
        chunk = rest[2 * len(keys) * index : 2 * len(keys) * (index + 1)]
        accounts, pools = chunk[::2], chunk[1::2]
        ready = sum(int(account[0] or 0) for account in accounts)
        oldest = min((int(a[2]) for a in accounts if int(a[0] or 0) and a[2]), default=now_us)
        live: dict[str, int] = {}
        for pool in pools:
            live |= registry.live_places(pairs(pool), now_us)
        stats[role] = {
            "ready": ready,
            "tickets": sum(int(account[1] or 0) for account in accounts),
            "unserved_seconds": max(0.0, (now_us - oldest) / 1e6),
            "workers": len(live),
            "places": sum(live.values()),
        }
    return stats


async def fencing_refusals(store: AsyncStore, keys: list[PartitionKeys]) -> int:
    """Give how many commits the fleet has refused because their worker no longer held the lease."""
    counts = await store.commands([("HGET", one.clock, "fenced") for one in keys])
    return sum(int(count or 0) for count in counts)
