"""The client for code that may block: start runs, follow them, decide, cancel.

Client(url, fleet="newsroom").start("writer", {...}) ──▶ Run ──▶ events, result
"""

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from techrevati.fleet import registry
from techrevati.fleet.asking import ask
from techrevati.fleet.budgets import BudgetLine, read_books
from techrevati.fleet.cards import Card
from techrevati.fleet.events import Cursor, page, reading
from techrevati.fleet.forking import ForkOptions, last_version_of
from techrevati.fleet.gates import GateLine, gates_key, line_of, look_calls, unasked
from techrevati.fleet.listen import ThreadListener
from techrevati.fleet.listing import ListOptions, RunFilter, RunPage, listing, reading_children, record_of
from techrevati.fleet.questions import Question, reading_questions
from techrevati.fleet.results import NotFinished, output_of
from techrevati.fleet.ringing import ring_for
from techrevati.fleet.settings import Settings, load_settings, seconds
from techrevati.fleet.starting import Duration, Start, StartOptions, decide_call, run_keys, start_call, steer_call
from techrevati.fleet.threads import Thread
from techrevati.fleet.versions import CheckpointRecord
from techrevati.store import calls
from techrevati.store.budgets import Budget
from techrevati.store.errors import RunNotFound
from techrevati.store.gates.records import Outdated
from techrevati.store.keys import PartitionKeys, roles_key
from techrevati.store.records import Event, RunRecord
from techrevati.store.sync import SyncStore

CHUNK = 100
LOOK_AGAIN = 2.0
"""Seconds after which a waiter looks by itself: pub/sub may lose messages."""


class Run:
    """A handle on one run; cheap, and as good in another process with the same id."""

    def __init__(self, client: "Client", run_id: str, *, created: bool = True) -> None:
        self._client, self.id, self.created = client, run_id, created

    def status(self) -> RunRecord:
        """Give what the store knows of the run now.

        Raises:
            RunNotFound: it never was, or its retention ended.
        """
        return self._client.record(self.id)

    def result(self, timeout: Duration | None = None) -> Any:
        """Wait for the end and give the output.

        Raises:
            RunFailed: it ended otherwise; the error says how.
            NotFinished: `timeout` seconds passed.
        """
        client = self._client
        deadline = None if timeout is None else time.monotonic() + seconds(timeout, "timeout")
        record = client.record(self.id)
        if record.status.is_terminal:
            return output_of(record)
        with client.listener.waiting(client.keys(self.id).wake(self.id)) as spoke:
            while True:
                spoke.clear()
                record = client.record(self.id)
                if record.status.is_terminal:
                    return output_of(record)
                left = LOOK_AGAIN if deadline is None else min(LOOK_AGAIN, deadline - time.monotonic())
                if left <= 0:
                    raise NotFinished(self.id, record.status.value)
                spoke.wait(left)

    def events(self, *, after: str | None = None, follow: bool = True) -> Iterator[Event]:
        """Give the run's events in order, from the first or behind the event whose id is `after`.

        With `follow` it waits for more until the run has ended.  If `after` is gone, a ``stream_reset`` event
        with a snapshot comes first.

        Raises:
            BadCursor, RunNotFound.
        """
        client, cursor = self._client, Cursor.parse(after)
        keys = client.keys(self.id)
        with client.listener.waiting(keys.wake(self.id)) as spoke:
            while True:
                spoke.clear()
                found = page(self.id, cursor, client.store.commands(reading(keys, self.id, cursor)))
                if not found.known:
                    raise RunNotFound(self.id)
                cursor = found.cursor
                yield from found.events
                if found.ended or (not follow and not found.events):
                    return
                if not found.events:
                    spoke.wait(LOOK_AGAIN)

    def cancel(self, reason: str = "cancelled by the caller") -> str:
        """Ask the run and its sub-agents to stop; gives the status after."""
        grace = round(self._client.settings.cancel_grace * 1e6)
        return self._client.store.run(calls.cancel(self._client.keys(self.id), self.id, reason, grace))

    def decide(
        self,
        call_id: str,
        action: Literal["resume", "cancel"] = "resume",
        payload: Any = None,
        *,
        decision_id: str | None = None,
    ) -> bool:
        """Answer a suspended call; False if this very decision (by its id) had arrived before.

        The call may be a sub-agent's, however far below: the decision is handed down to it.  Where several ask a
        call of one id, `call_id` is ``<run id>/<call id>``, as `questions` gives it.

        Raises:
            UnknownCall, AlreadyDecided, AmbiguousCall, RunEnded, RunNotFound.
        """
        c = self._client
        return c.store.run(
            decide_call(c.fleet, c.partitions, c.settings, self.id, call_id, action, payload, decision_id)
        )

    def questions(self) -> list[Question]:
        """Give the calls that wait for a decision: the run's own, and those of its sub-agents at any depth.

        Raises:
            RunNotFound.
        """
        return ask(self._client.store, reading_questions(self._client.keys(self.id), self.id))

    def steer(self, message: Any) -> bool:
        """Put a message into the live run; its next turn sees it."""
        c = self._client
        return c.store.run(steer_call(c.fleet, c.partitions, c.settings, self.id, message))

    def retry(self) -> str:
        """Send a dead, failed or cancelled run back to the turn it ended in."""
        return self._client.store.run(calls.retry(self._client.keys(self.id), self.id))

    def children(self) -> list[RunRecord]:
        """Give the run's sub-agents that are still known, the oldest first, each on a thread ``sub-agent-<run id>``."""
        client = self._client
        return ask(client.store, reading_children(client.keys(self.id), self.id))

    def fork(self, at: int | None = None, **options: Unpack[ForkOptions]) -> "Run":
        """Fork the run's thread at a version, or at this run's newest; see `Thread.fork`."""
        client = self._client
        tenant, thread_id, newest = ask(client.store, last_version_of(client.keys(self.id), self.id))
        return client.thread(thread_id, tenant=tenant).fork(newest if at is None else at, **options)

    def __repr__(self) -> str:
        return f"Run({self.id!r})"


class Client:
    """A fleet's front door.  Safe for threads; connects on first use."""

    def __init__(
        self,
        url: str | None = None,
        *,
        fleet: str,
        settings: Settings | None = None,
        cards: Sequence[Card] = (),
    ) -> None:
        given = settings or load_settings(**({"redis_url": url} if url else {}))
        self.settings = given if url is None else given.model_copy(update={"redis_url": url})
        self.fleet = fleet
        self.store = SyncStore(self.settings.redis_url, ring=ring_for(fleet, self.settings, blocking=True))
        self.listener = ThreadListener(self.settings.redis_url)
        self._declared = list(cards)
        self._cards: dict[str, Card] = {}
        self._partitions = 0
        # From anywhere, so that clients that start one run each do not all begin with partition 0.
        self._turns = itertools.count(random.randrange(4096))

    @property
    def partitions(self) -> int:
        """How many partitions the fleet has; read (or pinned) once."""
        if not self._partitions:
            pinned = "partitions" in self.settings.model_fields_set
            commands = registry.opening(self.fleet, self.settings.partitions)
            replies = self.store.commands([*commands, *registry.declare(self.fleet, self._declared)])
            self._partitions = registry.opened(self.fleet, replies, self.settings.partitions, pinned=pinned)
        return self._partitions

    def keys(self, run_id: str) -> PartitionKeys:
        return run_keys(self.fleet, self.partitions, run_id)

    def cards(self, *wanted: str) -> dict[str, Card]:
        """Give the fleet's agents; read again when one that is wanted is not among those known."""
        if not self._cards or any(agent not in self._cards for agent in wanted):
            self._cards = registry.cards_of(self.store.command("HGETALL", roles_key(self.fleet)))
        return self._cards

    def start(self, agent: str, input: Any = None, **options: Unpack[StartOptions]) -> Run:
        """Start a run and give its handle; nothing is written if it raises.

        `input` is any JSON: a string is a user's message, {"messages": […]} several; `StartOptions` has the rest.

        Raises:
            UnknownRole, BadName, NotJson, PayloadTooLarge, ValueError, ThreadBusy, LineFull, IdempotencyConflict,
            StoreUnreachable, StoreDenied.
        """
        return self.start_many([{"agent": agent, "input": input, **options}])[0]

    def start_many(self, starts: Sequence[Start]) -> list[Run]:
        """Start many runs, a round trip per hundred; all are checked before the first is sent."""
        partitions = self.partitions
        known = self.cards(*(one["agent"] for one in starts))
        built = [start_call(self.fleet, partitions, self.settings, known, one, next(self._turns)) for one in starts]
        runs: list[Run] = []
        for first in range(0, len(built), CHUNK):
            chunk = built[first : first + CHUNK]
            started = [self.store.run(chunk[0])] if len(chunk) == 1 else self.store.run_many(chunk)
            runs += [Run(self, one.run_id, created=one.created) for one in started]
        return runs

    def run(self, run_id: str) -> Run:
        """Give the handle of a run by its id."""
        self.keys(run_id)
        return Run(self, run_id)

    def handle(self, run_id: str, *, created: bool) -> Run:
        return Run(self, run_id, created=created)

    def record(self, run_id: str) -> RunRecord:
        record = record_of(run_id, self.store.command("HGETALL", self.keys(run_id).run(run_id)))
        if record is None:
            raise RunNotFound(run_id)
        return record

    def runs(self, *, after: str | None = None, limit: int = 100, **options: Unpack[ListOptions]) -> RunPage:
        """Give a page of the runs that fit, the newest first; `after` is the cursor of the page before.

        A page looks at 5,000 runs at most: it may hold few, or none, and yet have a cursor.
        """
        wanted = RunFilter.of(options)
        return ask(self.store, listing(self.fleet, self.partitions, wanted, after, limit))

    def list_runs(self, *, limit: int = 100, **options: Unpack[ListOptions]) -> list[RunRecord]:
        """Give the newest runs that fit, at most `limit`, however many pages that takes."""
        page = self.runs(limit=limit, **options)
        found = page.runs
        while page.cursor is not None and len(found) < limit:
            page = self.runs(after=page.cursor, limit=limit - len(found), **options)
            found += page.runs
        return found

    def thread(self, thread_id: str, *, tenant: str = "default") -> Thread:
        """Give the handle of a tenant's thread."""
        return Thread(self, thread_id, tenant)

    def checkpoints(
        self, thread_id: str, *, tenant: str = "default", before: int | None = None, limit: int = 100
    ) -> list[CheckpointRecord]:
        """Give the versions of a thread that are kept, the newest first."""
        return self.thread(thread_id, tenant=tenant).checkpoints(before=before, limit=limit)

    def gates(self) -> list[GateLine]:
        """Look at every gate that the fleet's workers have declared."""
        found = []
        for name, call in look_calls(self.fleet, self.store.command("SMEMBERS", gates_key(self.fleet))):
            try:
                found.append(line_of(name, self.store.run(call)))
            except Outdated:
                found.append(unasked(name))
        return found

    def budgets(self, tenant: str | None = None, *levels: str) -> list[BudgetLine]:
        """Read what is spent, reserved and allowed, of one tenant or of all.

        Tenants and their projects are listed; `levels` adds "thread:ID" or "run:ID".
        """
        return read_books(Budget(self.store, self.fleet), tenant, levels)

    def close(self) -> None:
        self.listener.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
