"""A world of the rules' tests whose runs are a fleet's: what it tells is read through the client.

World(Script(...), agent(...)).run("hello")         tests.unit.agent.scripted: in this process
FleetWorld(Script(...), agent(...)).run("hello")    started with the client, taken step by step as Celery tasks
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from techrevati.agent import decisions
from techrevati.agent.building import build
from techrevati.agent.definition import AgentDefinition
from techrevati.agent.endings import CANCELLED, TerminationReason, failed
from techrevati.agent.events import AnyEvent, Envelope
from techrevati.agent.loop.checkpoint import Checkpoint
from techrevati.agent.loop.outcome import Finished, Suspended
from techrevati.agent.suspension import SuspendedCall, ToolCallDecision
from techrevati.agent.threads.thread import Thread
from techrevati.fleet.aclient import AsyncClient, AsyncRun
from techrevati.fleet.failures import Retry
from techrevati.fleet.loop_ports import loop_message
from techrevati.store.errors import RunNotFound, ThreadNotFound
from techrevati.store.records import Event, RunRecord
from tests.conformance.scripts import ScriptedClient
from tests.conformance.service import ROLE, RuleFleet

QUICK_RETRY = Retry(tries=2, base=0.02, cap=0.05)
KINDS = {str(variant.__struct_config__.tag) for variant in AnyEvent.__args__}
AGAIN = ("run_start", "step_start", "reasoning_encrypted_value", "activity_snapshot", "activity_delta")
"""What comes with the commit again after it was told live; who follows knows it by its contents."""
POLL = 0.004


class NotOnAFleet(Exception):
    """A test asks for what only a world in one process has."""


class FleetWorld:
    """Agents of one test on the fleet of all of them."""

    def __init__(self, fleet: RuleFleet, model: Any, *definitions: AgentDefinition, **ports: Any) -> None:
        store = ports.pop("store", None)
        if ports:
            raise NotOnAFleet(f"ports {sorted(ports)}")
        self.service, self.model = fleet, model
        self.tenant = fleet.next_tenant() if store is None else store.tenant
        self._first = definitions[0].id
        self._definitions = definitions
        self.agents = {definition.id: build(definition) for definition in definitions}
        self._serve()
        self.client: AsyncClient = fleet.fleet.async_client()
        self.store = FleetStore(self)
        self.streams: list[FleetStream] = []

    def _serve(self) -> None:
        """Have the worker serve this world's agents, which are called like those of any other."""
        fleet = self.service
        fleet.models.client = self.model if hasattr(self.model, "complete") else ScriptedClient(self.model)
        for definition in self._definitions:
            fleet.fleet.agents.pop(definition.id, None)
            fleet.fleet.define(definition, role=ROLE, retry=QUICK_RETRY, timeout=20)

    async def start(self, text: str | None = "hello", *, thread: str = "t", **options: Any) -> "FleetStream":
        self._serve()
        options.pop("run_id", None)  # a fleet names its runs itself
        options.pop("on_suspend", None)  # a fleet's runs always wait under their own id
        agent = options.pop("agent", self._first)
        given: tuple[ToolCallDecision, ...] = options.pop("initial_decisions", ())
        opening = {key: options.pop(key) for key in ("state", "policy", "parent_run_id") if key in options}
        if options:
            raise NotOnAFleet(f"options {sorted(options)}")
        last = next((one for one in reversed(self.streams) if one.thread_id == thread), None)
        if text is None and last is not None and not (await last.run.status()).status.is_terminal:
            stream = FleetStream(self, last.run, thread, after=await last.place())
        else:
            input: Any = text
            if text is None or opening or (given and last is not None):
                said = [] if text is None else [{"role": "user", "content": text}]
                input = msgspec.to_builtins({"messages": said, "decisions": given, **opening})
                given = ()
            run = await self.client.start(agent, input, thread_id=thread, tenant=self.tenant, on_busy="interrupt")
            stream = FleetStream(self, run, thread)
        self.streams.append(stream)
        for decision in given:
            await stream.decide(decision)
        return stream

    async def run(self, text: str | None = "hello", **options: Any) -> tuple[Finished | Suspended, list[Envelope]]:
        stream = await self.start(text, **options)
        outcome = await stream.result()
        return outcome, await stream.told()

    async def checkpoint(self, thread: str = "t") -> Checkpoint:
        found = self.client.thread(thread, tenant=self.tenant)
        said, cursor = list[Any](), None
        while True:
            page = await found.messages(after=cursor, limit=100)
            said += page.messages
            cursor = page.cursor
            if cursor is None:
                break
        messages = tuple(loop_message(one, place) for place, one in enumerate(said))
        return Checkpoint(thread, messages, await found.state(), (await found.status()).version)

    async def thread(self, thread: str = "t") -> Thread:
        now = await self.checkpoint(thread)
        return Thread(id=thread, messages=now.messages, state=now.document)

    async def state(self, thread: str = "t") -> dict[str, Any]:
        return (await self.checkpoint(thread)).document

    async def close(self) -> None:
        """End what the test left running."""
        for stream in self.streams:
            stream.stop_looking()
            with contextlib.suppress(RunNotFound):  # its thread was deleted
                if not (await stream.run.status()).status.is_terminal:
                    await stream.run.cancel("the test is over")
        await self.client.close()


class FleetStore:
    """What the rules' tests read of a store of threads, read through the client."""

    def __init__(self, world: FleetWorld) -> None:
        self._world, self.tenant = world, world.tenant

    async def load_thread(self, thread_id: str) -> Thread | None:
        try:
            return await self._world.thread(thread_id)
        except ThreadNotFound:
            return None

    async def list(self) -> list[str]:
        return sorted({run.thread_id for run in await self._world.client.list_runs(tenant=self._world.tenant)})


class FleetStream:
    """A run of a fleet with the face of `RunStream`; each leg of a run that waited is another."""

    def __init__(self, world: FleetWorld, run: AsyncRun, thread_id: str, *, after: str | None = None) -> None:
        self._world, self.run, self.thread_id, self._after = world, run, thread_id, after
        self._asked: list[asyncio.Future[Any]] = []
        self._waiting: tuple[SuspendedCall, ...] = ()
        self._watch: asyncio.Task[None] | None = None

    @property
    def run_id(self) -> str:
        return self.run.id

    # -- what is asked of it -----------------------------------------------------------------------

    async def decide(self, one: ToolCallDecision) -> None:
        payload = one.reason if one.result is None else one.result
        await self.run.decide(one.target_id, one.action.value, payload, decision_id=one.decision_id)

    def submit_decision(self, decision: ToolCallDecision) -> None:
        self._ask(self.decide(decision))

    def steer(self, text: str) -> None:
        self._ask(self.run.steer(text))

    def cancel(self, reason: str = "enough") -> None:
        self._ask(self.run.cancel(reason))

    def _ask(self, work: Any) -> None:
        self._asked.append(asyncio.ensure_future(work))

    # -- what it tells -----------------------------------------------------------------------------

    async def _rests(self) -> RunRecord | None:
        """Give the run's record once it has ended or waits for somebody's decision."""
        if self._asked:
            await asyncio.gather(*self._asked)
        record = await self.run.status()
        waits = record.status.value == "waiting" and record.why == "decision"
        return record if record.status.is_terminal or waits else None

    @property
    def waiting(self) -> tuple[SuspendedCall, ...]:
        """Give the calls it waits for, as of a moment ago."""
        if self._watch is None:
            self._watch = asyncio.ensure_future(self._look())
        return self._waiting

    async def _look(self) -> None:
        while (record := await self.run.status()) and not record.status.is_terminal:
            waits = record.status.value == "waiting" and record.why in ("decision", "child")
            document = (await self._world.checkpoint(self.thread_id)).document if waits else {}
            self._waiting = decisions.waiting(document) if document else ()
            await asyncio.sleep(POLL)
        self._waiting = ()

    def stop_looking(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def result(self) -> Finished | Suspended:
        while (record := await self._rests()) is None:
            await asyncio.sleep(POLL)
        now = await self._world.checkpoint(self.thread_id)
        if not record.status.is_terminal:
            return Suspended(now, decisions.waiting(now.document), True)
        reason = await self._reason(record)
        natural = reason.type == "natural_end" and isinstance(record.output, str)
        return Finished(now, reason, record.output or None if natural else None)

    async def _reason(self, record: RunRecord) -> TerminationReason:
        if record.status.value in ("cancelled", "superseded"):
            return CANCELLED
        ends = [e async for e in self.run.events(follow=False) if e.type == "run_finish"]
        if not ends:
            return failed(str((record.error or {}).get("message", record.status.value)))
        return msgspec.convert(ends[-1].data["termination"], TerminationReason)

    async def place(self) -> str | None:
        """Give the id of the newest event."""
        last = self._after
        async for event in self.run.events(follow=False):
            last = event.id
        return last

    async def told(self) -> list[Envelope]:
        return envelopes([event async for event in self.run.events(after=self._after, follow=False)], self.thread_id)

    @property
    def events(self) -> AsyncIterator[Envelope]:
        return self._follow()

    async def _follow(self) -> AsyncIterator[Envelope]:
        seen = 0
        while True:
            resting = await self._rests() is not None
            told = await self.told()
            for envelope in told[seen:]:
                yield envelope
            seen = max(seen, len(told))
            if resting:
                return
            await asyncio.sleep(POLL)

    async def aclose(self) -> None:
        self.cancel()
        with contextlib.suppress(Exception):
            await self.result()


def envelopes(told: list[Event], thread_id: str) -> list[Envelope]:
    """Read a fleet's events as the loop's; those of the fleet itself are left out."""
    found: list[Envelope] = []
    known = set[str]()
    for event in told:
        data = dict(event.data)
        if event.type == "text.delta":
            kind, data = "text_delta", {"delta": data["text"]}
        elif event.type in KINDS:
            kind = event.type
        else:
            continue
        data.pop("attempt", None)  # of a delta: that of the turn
        if kind in AGAIN:
            name = f"{kind} {msgspec.json.encode(data).decode()}"
            if name in known:
                continue
            known.add(name)
        step_id = data.pop("step_id", None)
        read: AnyEvent = msgspec.convert({**data, "type": kind}, AnyEvent)
        found.append(Envelope(event.run_id, thread_id, len(found), round(event.at * 1000), read, step_id))
    return found
