"""The turn engine of one process: claim, run, commit.

    ticket ─▶ claim ─▶ load thread ─▶ agent function ─▶ commit ─▶ maybe claim the next

It knows no Celery: a pool calls `serve` with the role and partition of a ticket.  An infrastructure fault
never leaves `serve` as an exception: the lease says whose turn it is, and the sweeper finds what was let go.
"""

import asyncio
import contextlib
import inspect
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

from techrevati.fleet.agents import Agent
from techrevati.fleet.children import Children, Directory
from techrevati.fleet.codec import encode
from techrevati.fleet.conversation import Messages
from techrevati.fleet.failures import TurnTimedOut, UnknownAgent, classify, describe
from techrevati.fleet.history import Threads, View
from techrevati.fleet.leases import Ending, Lease, Leases
from techrevati.fleet.live import Live
from techrevati.fleet.model_failures import asked_wait
from techrevati.fleet.models import Models, RetryLater
from techrevati.fleet.outcome import Complete, Fail, Handoff, Parked, alone, parked_in
from techrevati.fleet.settings import Settings
from techrevati.fleet.settle import (
    Limits,
    as_outcome,
    cancelled_of,
    commit_of,
    dead_of,
    park_of,
    retry_of,
)
from techrevati.fleet.state import State
from techrevati.fleet.sync_turn import SyncTurn
from techrevati.fleet.turn import Calls, Turn
from techrevati.store import calls
from techrevati.store.aio import AsyncStore
from techrevati.store.calls import ClaimSpec, CommitSpec
from techrevati.store.errors import LeaseLost, RunNotFound, StoreError, StoreUnreachable
from techrevati.store.keys import PartitionKeys
from techrevati.store.records import Committed, Grant, InboxEntry, decode_json, inbox_of, pairs
from techrevati.telemetry.tracing import Tracing, note_outcome

log = logging.getLogger(__name__)

TICKET_SECONDS = 5.0


@dataclass(slots=True)
class Running:
    """A turn this process is in, and whether it was asked to stop."""

    task: "asyncio.Task[Any]"
    active: bool = True
    ending: Ending | None = None
    turn: Turn | None = None
    until: float = math.inf
    """When its agent's time is up, on the monotonic clock."""


@dataclass(slots=True)
class Counts:
    """What the engine has done since it started."""

    turns: int = 0
    fenced: int = 0
    retried: int = 0
    dead: int = 0
    parked: int = 0
    released: int = 0
    empty: int = 0


@dataclass(slots=True)
class _Lines:
    """How a running turn reaches the store."""

    store: AsyncStore
    keys: PartitionKeys
    run_id: str
    token: str
    live: Live
    seam: Callable[[str], None]

    async def step_begin(self, key: str, policy: str, journal: list[tuple[str, str]]) -> str | None:
        return await self.store.run(calls.step_begin(self.keys, self.run_id, self.token, key, policy, journal))

    async def step_end(self, journal: list[tuple[str, str]]) -> str:
        self.seam("before_step")
        kept = await self.store.run(calls.step_end(self.keys, self.run_id, self.token, journal))
        self.seam("after_step")
        return kept

    async def mail(self) -> list[InboxEntry]:
        reply = await self.store.command("HGETALL", self.keys.inbox(self.run_id))
        return inbox_of(reply if isinstance(reply, dict) else pairs(reply))

    def delta(self, kind: str, data: str) -> None:
        self.live.add(kind, data)


@dataclass(slots=True)
class Engine:
    """Serves tickets with the agents of a fleet; one per process and loop."""

    fleet: str
    agents: Mapping[str, Agent]
    models: Models
    settings: Settings
    worker: str
    store: AsyncStore
    leases: Leases
    tracing: Tracing
    monotonic: Callable[[], float] = time.monotonic
    seam: Callable[[str], None] = lambda _: None
    """Called with the name of each crash point; chaos tests arm it."""
    calls: Calls | None = None
    """How model calls go out; None: straight."""
    counts: Counts = field(default_factory=Counts)
    _threads: Threads = field(init=False)
    _limits: Limits = field(init=False)
    _directory: Directory = field(init=False)
    _executor: ThreadPoolExecutor | None = field(init=False, default=None)
    _running: dict[str, Running] = field(init=False, default_factory=dict)
    _lane_busy: bool = field(init=False, default=False)
    _lane_missed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        s = self.settings
        # Never fewer than there are places: threads in turn would push each other out.
        self._threads = Threads(max(s.cache_threads, 2 * s.concurrency) if s.cache_threads else 0)
        self._directory = Directory(self.fleet, self.store, {agent.name: agent.card for agent in self.agents.values()})
        self._limits = Limits(s.max_payload, s.full_every, s.keep_checkpoints)

    @property
    def active(self) -> int:
        """Turns under way."""
        return len(self._running)

    # -- one ticket --------------------------------------------------------------------------------

    async def serve(self, role: str, partition: int, draining: Callable[[], bool]) -> None:
        """Claim and run turns for one ticket: one, or up to `turns_per_ticket` while there is work."""
        keys = PartitionKeys(self.fleet, partition)
        most, begun = self.settings.turns_per_ticket, self.monotonic()
        served = 0
        if draining():
            return  # whoever lives gets a ticket of their own from the sweep

        asked = self.monotonic()
        grant = await self._claim(keys, self._spec(role, ticket=True))
        while grant is not None:
            served += 1
            more = served < most and self.monotonic() - begun < TICKET_SECONDS and not draining()
            lane = int(grant.fields["attempt"] or 0) + 1 >= int(grant.fields["maxa"] or 3) > 1
            self._lane_busy = self._lane_busy or lane
            # A claim that rides on a commit never takes a last attempt: those come one at a time.
            then = self._spec(role, ticket=False, fused=True) if more and not lane else None
            try:
                grant, asked = await self._turn(keys, grant, asked, then)
            finally:
                if lane:
                    self._lane_busy = False
            if lane and self._lane_missed and not draining():
                self._lane_missed = False
                asked = self.monotonic()
                grant = await self._claim(keys, self._spec(role, ticket=False))

    def _spec(self, role: str, *, ticket: bool, fused: bool = False) -> ClaimSpec:
        return ClaimSpec(
            role=role,
            claim_id=os.urandom(8).hex(),
            worker=self.worker,
            ttl_us=round(self.settings.lease_ttl * 1e6),
            lane_free=not fused and not self._lane_busy,
            from_ticket=ticket,
        )

    async def _claim(self, keys: PartitionKeys, spec: ClaimSpec) -> Grant | None:
        # While a claim that may take a last attempt is under way, others must not: one lane per process.
        held_lane = spec.lane_free
        if held_lane:
            self._lane_busy = True
        try:
            claimed = await self.store.run(calls.claim(keys, spec))
        except StoreError as error:
            log.warning("no claim for %s in partition %d: %s", spec.role, keys.partition, error)
            return None
        finally:
            if held_lane:
                self._lane_busy = False
        if claimed.grant is None:
            self.counts.empty += 1
            self._lane_missed = self._lane_missed or (claimed.ready > 0 and not held_lane)
        return claimed.grant

    # -- one turn ----------------------------------------------------------------------------------

    async def _turn(
        self, keys: PartitionKeys, grant: Grant, asked: float, then: ClaimSpec | None
    ) -> tuple[Grant | None, float]:
        fields, run_id = grant.fields, grant.run_id
        task = asyncio.current_task()
        assert task is not None
        running = Running(task)
        loop = asyncio.get_running_loop()

        def stop(ending: Ending) -> None:
            loop.call_soon_threadsafe(self._interrupt, running, ending)

        lease = Lease(run_id, grant.token, keys, asked + self.settings.lease_ttl, stop)
        self.leases.hold(lease)
        self._running[run_id] = running
        live = Live(self.store, keys, run_id, grant.token, self.settings.delta_interval)
        try:
            self.seam("after_claim")
            view = await self._threads.load(self.store, keys, grant)
            turn = running.turn = self._make_turn(keys, grant, view, live)
            if fields["cancel"]:  # it was asked to stop before: this turn is for its end
                running.ending = Ending.CANCELLED
            turn.is_stopping = running.ending is Ending.CANCELLED
            await turn.children.read_ends(grant.inbox)
            with self.tracing.turn(run_id, fields, turn.attempt) as span:
                spec, after, ending = await self._run(turn, view, running)
                if spec is not None:
                    note_outcome(span, spec.move, spec.body if spec.move in ("retry", "dead") else "")
            await live.settle()
            if spec is None:
                await self._let_go(keys, turn, ending)
                return None, asked
            self.seam("before_commit")
            asked = self.monotonic()
            committed = await self._commit(keys, spec, lease, then)
            self.seam("after_commit")
            if committed is None:
                self._threads.forget(turn.tenant, turn.thread_id)
                return None, asked
            self.counts.turns += 1
            await turn.children.let_go()
            if after is not None and committed.home:
                self._threads.remember(turn.tenant, turn.thread_id, after)
            elif not committed.home:
                self._threads.forget(turn.tenant, turn.thread_id)
            return committed.grant, asked
        except StoreError as error:
            log.warning("turn %s of run %s let go: %s", fields["turn"], run_id, error)
            return None, asked
        finally:
            running.active = False
            self.leases.drop(lease)
            if self._running.get(run_id) is running:
                del self._running[run_id]

    def _make_turn(self, keys: PartitionKeys, grant: Grant, view: View, live: Live) -> Turn:
        fields, limit = grant.fields, self.settings.max_payload
        messages = Messages(view.messages, limit)
        if fields["turn"] == "1" and fields.get("input"):
            messages.added.extend(opening_messages(fields["input"]))
        for entry in grant.inbox:
            if entry.kind == "steer" and isinstance(entry.body, dict) and "role" in entry.body:
                messages.added.append(entry.body)
        return Turn(
            fields=fields,
            run_id=grant.run_id,
            token=grant.token,
            state=State(view.state, limit),
            messages=messages,
            inbox=grant.inbox,
            journal=grant.journal,
            models=self.models,
            lines=_Lines(self.store, keys, grant.run_id, grant.token, live, self.seam),
            limit=limit,
            park_after=self.settings.park_after,
            version=view.version,
            children=Children(self._directory, keys, self.settings, fields, grant.run_id, grant.token, self.seam),
            session=agent.session if (agent := self.agents.get(fields.get("agent", ""))) else None,
            calls=self.calls,
        )

    async def _run(
        self, turn: Turn, view: View, running: Running
    ) -> tuple[CommitSpec | None, View | None, Ending | None]:
        """Run the agent; gives the commit to make and the thread after it, or why there is none."""
        agent = self.agents.get(turn.agent)
        begun = self.monotonic()
        try:
            try:
                if agent is None:
                    raise UnknownAgent(turn.agent, tuple(sorted(self.agents)))
                running.until = begun + agent.timeout
                outcome = await turn.settle_children(as_outcome(await self._calmly(agent, turn)))
            finally:
                running.active = False
                if running.ending is not None:  # a stop may have been asked for as the agent returned
                    await self._calm(running)
            if running.ending is Ending.LOST:
                return None, None, running.ending
            turn.settle_session(ended=isinstance(outcome, Complete | Handoff | Fail))
            spec, after = commit_of(turn, outcome, view, self.worker, self._limits, self._cost(agent, turn, begun))
        except asyncio.CancelledError as error:
            turn.abandon_session(error)
            if running.ending is None:
                running.ending = Ending.DRAINED  # the pool's doing: a shutdown, a revoke, a hard limit
                await asyncio.shield(self._release(turn))
                raise
            if running.ending is Ending.CANCELLED:
                return cancelled_of(turn, self.worker, self._limits), None, running.ending
            if running.ending is Ending.TIMED_OUT and agent is not None:
                return self._failed(turn, agent, TurnTimedOut(turn.role, agent.timeout)), None, None
            return None, None, running.ending
        except Parked as parked:
            turn.abandon_session(parked)
            self.counts.parked += 1
            return park_of(turn, self.worker, parked), None, None
        except StoreUnreachable:
            raise
        except LeaseLost:
            return None, None, Ending.LOST
        except Exception as error:  # noqa: BLE001 - an agent may raise anything; all of it is classified
            turn.abandon_session(error)
            return self._failed(turn, agent, error), None, None
        return spec, after, None

    async def _calmly(self, agent: Agent, turn: Turn) -> Any:
        """Run the agent; where one of its tasks parks, the model calls of the others come to their end first."""
        try:
            try:
                return await self._call(agent, turn)
            except (Parked, BaseExceptionGroup) as error:
                parked, begun = parked_in(error), self.monotonic()
                if parked is None:
                    raise alone(error) from None
            await turn.calls_end()
            raise Parked(max(0.0, parked.seconds - (self.monotonic() - begun)), parked.why)
        finally:
            turn.stop_calls()

    async def _call(self, agent: Agent, turn: Turn) -> Any:
        if agent.is_async:
            return await agent.function(turn)
        loop = asyncio.get_running_loop()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.settings.sync_threads, "techrevati-agent")
        result = await loop.run_in_executor(
            self._executor, cast(Callable[[Any], Any], agent.function), SyncTurn(turn, loop)
        )
        return await result if inspect.isawaitable(result) else result

    def _failed(self, turn: Turn, agent: Agent | None, error: Exception) -> CommitSpec:
        failure = classify(error)
        asked = asked_wait(error)
        if isinstance(error, RetryLater) and error.seconds > self.settings.park_after:
            self.counts.parked += 1  # the provider's word, not a failure of ours: it costs no try
            return park_of(turn, self.worker, Parked(error.seconds, f"model:{error.name}"))
        wait = None if agent is None else agent.retry.after(failure, turn.failures + 1, asked=asked)
        body = encode(describe(error, failure) | {"tries": turn.failures + 1}, "error", 1 << 30)
        if wait is None:
            self.counts.dead += 1
            turn.log.error("turn %d is dead (%s): %s", turn.number, failure, error, exc_info=error)
            return dead_of(turn, self.worker, body)
        self.counts.retried += 1
        turn.log.warning("turn %d failed (%s), again in %.1f s: %s", turn.number, failure, wait, error)
        return retry_of(turn, self.worker, failure, wait, body)

    def _cost(self, agent: Agent, turn: Turn, begun: float) -> str:
        """Give what a turn cost beyond the one that its claim charged, where the role meters it."""
        if agent.meter == "seconds":
            return repr(round(self.monotonic() - begun - 1.0, 3))
        if agent.meter == "tokens":
            return repr(round((turn.usage.input_tokens + turn.usage.output_tokens) / 1000 - 1.0, 3))
        return ""

    # -- how it ends -------------------------------------------------------------------------------

    async def _commit(
        self, keys: PartitionKeys, spec: CommitSpec, lease: Lease, then: ClaimSpec | None
    ) -> Committed | None:
        """Commit, insisting while the lease lasts: the same token gets the same answer."""
        while True:
            try:
                return await self.store.run(calls.commit(keys, spec, then))
            except LeaseLost as error:
                self.counts.fenced += 1
                log.warning("commit refused: %s", error)
                return None
            except RunNotFound as error:
                log.warning("commit refused: %s", error)
                return None
            except StoreUnreachable as error:
                if self.monotonic() >= lease.ends:
                    log.error("run %s: commit given up, its lease ran out: %s", spec.run_id, error)
                    return None

    async def _let_go(self, keys: PartitionKeys, turn: Turn, ending: Ending | None) -> None:
        self._threads.forget(turn.tenant, turn.thread_id)
        if ending is Ending.DRAINED:
            await self._release(turn)
        elif ending is Ending.LOST:
            self.counts.fenced += 1
            turn.log.warning("turn %d stopped: its lease is lost or was revoked", turn.number)

    async def _release(self, turn: Turn) -> None:
        """Give a turn back to ready, with what it has paid for; no attempt is counted."""
        keys = PartitionKeys(self.fleet, int(turn.run_id.rpartition(".")[2]))
        self.counts.released += 1
        try:
            await self.store.run(calls.release(keys, turn.run_id, turn.token, turn.unwritten()))
        except StoreError as error:
            log.warning("run %s not released, its lease runs out instead: %s", turn.run_id, error)

    def _interrupt(self, running: Running, ending: Ending) -> None:
        """Stop a turn; on the loop.  One that winds up because it was cancelled may lose its lease, or its time."""
        winds_up = running.ending is Ending.CANCELLED and ending in (Ending.LOST, Ending.TIMED_OUT)
        if running.active and (running.ending is None or winds_up):
            running.ending = Ending.LOST if winds_up else ending
            if running.turn is not None:
                running.turn.is_stopping = ending is Ending.CANCELLED
            running.task.cancel()

    async def _calm(self, running: Running) -> None:
        """Take back a cancellation that was meant for the turn, so that its commit is not hit by it."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        while running.task.cancelling():
            running.task.uncancel()

    def stop_late(self) -> None:
        """Stop the turns that have run longer than their agent allows; the worker's pulse calls it.

        One look at all of them costs less than a timer for each: most turns end long before their limit.
        """
        now = self.monotonic()
        for running in list(self._running.values()):
            if running.until <= now:
                self._interrupt(running, Ending.TIMED_OUT)

    def stop_turn(self, run_id: str, ending: Ending) -> None:
        """Stop a turn this process has; on the loop."""
        if (running := self._running.get(run_id)) is not None:
            self._interrupt(running, ending)

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def opening_messages(text: str) -> list[dict[str, Any]]:
    """Read a run's input as the messages that open it.

    A string is what the user says; {"messages": [...]} are messages; anything else is said as JSON.
    """
    value = decode_json(text)
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        return [dict(message) for message in value["messages"]]
    if value is None:
        return []
    return [{"role": "user", "content": text}]
