"""The composition root of a worker process: store, leases, heartbeats, engine, and Celery's sockets.

Celery pool starts ─▶ WorkerRuntime.start ─▶ Engine.serve for each ticket ─▶ WorkerRuntime.stop
"""

import asyncio
import gc
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from techrevati.fleet import registry
from techrevati.fleet.agents import Agent
from techrevati.fleet.budgets import BudgetSpec
from techrevati.fleet.checkpoints import CheckpointSpec, Savers
from techrevati.fleet.engine import Engine
from techrevati.fleet.gatehouse import Gatehouse
from techrevati.fleet.gates import gates_key
from techrevati.fleet.leases import Ending, Leases
from techrevati.fleet.listen import AsyncListener
from techrevati.fleet.models import Costs, Models
from techrevati.fleet.session_gate import Outgoing
from techrevati.fleet.settings import Settings
from techrevati.fleet.sinks import Sinks, SinkSpec
from techrevati.store import calls
from techrevati.store.aio import AsyncStore
from techrevati.store.errors import StoreError
from techrevati.store.gates import GateSpec
from techrevati.store.keys import CALL_PREFIX, PartitionKeys
from techrevati.store.scripts import PROTOCOL
from techrevati.store.sync import SyncStore
from techrevati.store.wire import Ring
from techrevati.telemetry.metrics import LimitMetrics
from techrevati.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

PULSE = 0.1
"""Seconds between two signs of life of the loop, and how late a turn's time limit may fire."""

Template = Callable[[str, int], str]
"""Gives the ticket template of a (role, partition), or "" where the broker is not the store's Redis."""


class Places(Protocol):
    """What the runtime asks of the pool it lives in."""

    limit: int

    @property
    def draining(self) -> bool: ...


def worker_name(role: str) -> str:
    """Name this process, uniquely among the living: role@host:pid:random."""
    return f"{role}@{socket.gethostname()}:{os.getpid()}:{os.urandom(3).hex()}"


def _gates_of(agents: Mapping[str, Agent]) -> dict[str, str]:
    return {name: agent.gate for name, agent in agents.items() if agent.gate}


def collect_less() -> None:
    """Keep the garbage collector from walking thousands of live turns over and over.

    What imports made is frozen, and young objects are collected by the 20,000 instead of the 700: about a
    sixth of a busy worker's CPU (docs/decisions/0004).
    """
    sys.setswitchinterval(0.001)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class WorkerRuntime:
    """All that a worker process of one role has beside its pool."""

    def __init__(
        self,
        fleet: str,
        role: str,
        agents: Mapping[str, Agent],
        models: Models,
        settings: Settings,
        *,
        template: Template,
        ring: Ring | None = None,
        seam: Callable[[str], None] | None = None,
        gates: Mapping[str, GateSpec] | None = None,
        costs: Mapping[str, Costs] | None = None,
        budget: BudgetSpec | None = None,
        saving: CheckpointSpec | None = None,
        telling: SinkSpec | None = None,
    ) -> None:
        self.fleet, self.role, self.agents, self.models = fleet, role, agents, models
        self.settings = settings
        self._template, self._ring, self._seam = template, ring, seam
        self._gates, self._budget, self._saving, self._telling = gates or {}, budget, saving, telling
        self._costs = costs
        self._house: Gatehouse | None = None
        self.worker = worker_name(role)
        self.partitions: list[PartitionKeys] = []
        self.engine: Engine | None = None
        self._places = settings.concurrency
        self._pool: Any = None
        self._leaving = False
        self._beaten = 0.0
        self._ready = 0
        self._listener: AsyncListener | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._sync: SyncStore | None = None
        self._leases: Leases | None = None
        self._store: AsyncStore | None = None

    # -- the pool's LoopService --------------------------------------------------------------------

    async def start(self, loop: asyncio.AbstractEventLoop, pool: Any) -> None:
        """Connect, declare the agents, begin to renew and to beat.

        Raises:
            StoreUnreachable, StoreDenied, FleetMismatch, UpgradeRequired: the worker must not take tickets.
        """
        s = self.settings
        self._pool, self._places = pool, int(getattr(pool, "limit", 0) or s.concurrency)
        self._sync = self._blocking()
        self._store = AsyncStore(s.redis_url, patience=s.lease_ttl, ring=self._ring)
        await loop.run_in_executor(None, self._open)
        self._leases = Leases(
            self._sync, ttl=s.lease_ttl, every=s.lease_renewal, loop_stall=s.loop_stall, beat=self._beat
        )
        if self._gates or any(one is not None for one in (self._budget, self._saving, self._telling)):
            self._house = Gatehouse(
                self.fleet,
                self.models,
                self._store,
                worker=self.worker,
                gates=self._gates,
                costs=self._costs,
                budget=self._budget,
                savers=None if self._saving is None else Savers(self._blocking(), self.fleet, self._saving),
                sinks=None if self._telling is None else Sinks(self._blocking(), self.fleet, self._telling),
                metrics=LimitMetrics() if s.otel else None,
            )
        self.engine = Engine(
            fleet=self.fleet,
            agents=self.agents,
            models=self.models,
            settings=s,
            worker=self.worker,
            store=self._store,
            leases=self._leases,
            tracing=Tracing(enabled=s.otel),
            calls=None if self._house is None else Outgoing(self._house, _gates_of(self.agents)),
        )
        if self._seam is not None:
            self.engine.seam = self._seam
        self._listener = AsyncListener(s.redis_url)
        for keys in self.partitions:
            await self._listener.listen(keys.stop, self._heard_stop)
        self._pulse = loop.create_task(self._show_life())
        self._leases.start()
        collect_less()
        log.info("%s serves %s in %d partitions, %d places", self.worker, self.role, len(self.partitions), self._places)

    async def stop(self) -> None:
        """Say goodbye, so that nobody waits for this worker; then hang up."""
        self._leaving = True
        loop = asyncio.get_running_loop()
        if self._leases is not None:
            await loop.run_in_executor(None, self._leases.stop)
        await loop.run_in_executor(None, self._say, 0)
        if self._pulse is not None:
            self._pulse.cancel()
        if self._listener is not None:
            await self._listener.close()
        if self.engine is not None:
            self.engine.close()
        if self._house is not None:
            await self._house.close()
        if self._store is not None:
            await self._store.close()
        if self._sync is not None:
            self._sync.close()

    async def serve(self, role: str, partition: int, draining: Callable[[], bool]) -> None:
        """Serve one ticket."""
        assert self.engine is not None
        await self.engine.serve(role, partition, draining)

    def ready_count(self) -> int:
        """Ready runs of this role, as of the last heartbeat: what a stalled consumer is missing."""
        return self._ready

    def _blocking(self) -> SyncStore:
        return SyncStore(self.settings.redis_url, patience=max(1.0, self.settings.lease_ttl / 3))

    # -- life signs --------------------------------------------------------------------------------

    def _open(self) -> None:
        assert self._sync is not None
        given = self.settings.partitions
        pinned = "partitions" in self.settings.model_fields_set
        replies = self._sync.commands(registry.opening(self.fleet, given))
        count = registry.opened(self.fleet, replies, given, pinned=pinned)
        self.partitions = registry.partitions_of(self.fleet, count)
        # A tool is no agent that anybody could start or hand a run to.
        cards = (agent.card for agent in self.agents.values() if not agent.name.startswith(CALL_PREFIX))
        self._sync.commands(registry.declare(self.fleet, cards))
        if self._gates:
            self._sync.command("SADD", gates_key(self.fleet), *self._gates)
        self._say(self._places)

    def _beat(self) -> None:
        now, draining = time.monotonic(), bool(getattr(self._pool, "draining", False))
        if draining and not self._leaving:
            self._leaving = True  # no more tickets for this worker, while its turns end
            self._say(0)
        if now - self._beaten >= self.settings.heartbeat and not self._leaving:
            self._beaten = now
            try:
                self._say(self._places)
            except StoreError as error:
                log.warning("no heartbeat: %s", error)

    def _say(self, places: int) -> None:
        assert self._sync is not None
        ttl = round(self.settings.heartbeat * 3e6)
        try:
            answers = self._sync.run_many(
                [
                    calls.pool_beat(
                        keys, self.role, self.worker, places, self._template(self.role, keys.partition), ttl
                    )
                    for keys in self.partitions
                ]
            )
            self._ready = sum(ready for _, ready in answers)
            card = {
                "role": self.role,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "places": places,
                "protocol": PROTOCOL,
                "agents": {agent.name: agent.version for agent in self.agents.values() if agent.role == self.role},
                "until": time.time() + ttl / 1e6 if places else 0,
            }
            self._sync.command("HSET", registry.workers_key(self.fleet), self.worker, json.dumps(card))
        except StoreError:
            if places:
                raise

    async def _show_life(self) -> None:
        assert self._leases is not None
        while True:
            self._leases.loop_seen = time.monotonic()
            if self.engine is not None:
                self.engine.stop_late()
            await asyncio.sleep(PULSE)

    def _heard_stop(self, run_id: str | None) -> None:
        """A run of ours was cancelled or revoked: the next renewal would say which; ask now."""
        if self.engine is None or self._leases is None:
            return
        if run_id is None or any(lease.run_id == run_id for lease in self._leases.held()):
            asyncio.get_running_loop().run_in_executor(None, self._leases.renew)


@dataclass(frozen=True, slots=True)
class Seats:
    """What a process offers that has no pool of ours: how many tickets it serves at a time."""

    limit: int
    draining: bool = False


class LoopHost:
    """A loop of its own for pools without one (prefork, threads): started in the process that serves."""

    def __init__(self, make: Callable[[], WorkerRuntime]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runtime: WorkerRuntime | None = None
        self._seats = Seats(1)

    def start(self, places: int) -> None:
        """Announce this process, and be ready when its first ticket comes; does not wait."""
        self._seats = Seats(places)
        threading.Thread(target=self._try_to_be_ready, name="techrevati-start", daemon=True).start()

    def stop(self) -> None:
        """Say goodbye; turns under way should have ended."""
        with self._lock:
            if self._pid != os.getpid() or self._runtime is None or self._loop is None:
                return
            self._pid = 0
            asyncio.run_coroutine_threadsafe(self._runtime.stop(), self._loop).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)

    def serve(self, role: str, partition: int, draining: Callable[[], bool]) -> None:
        """Serve one ticket and wait for it."""
        self._be_ready()
        assert self._loop is not None and self._runtime is not None
        work = self._runtime.serve(role, partition, draining)
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            future.result()
        except BaseException:
            future.cancel()  # a time limit hit this thread: the turn is released, not left behind
            raise

    def _try_to_be_ready(self) -> None:
        try:
            self._be_ready()
        except Exception as error:  # noqa: BLE001 - a ticket tries again, and then it is its failure
            log.error("this process serves nothing yet: %s", error)

    def _be_ready(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="techrevati-loop", daemon=True).start()
            runtime = self._make()
            asyncio.run_coroutine_threadsafe(runtime.start(loop, self._seats), loop).result()
            self._loop, self._runtime, self._pid = loop, runtime, os.getpid()


__all__ = ["Ending", "LoopHost", "Seats", "Template", "WorkerRuntime", "worker_name"]
