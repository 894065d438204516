"""A run that goes on in this process, as whoever follows it sees it.

Driver.start(agent, request) ──▶ RunStream: events, submit_decision, steer, cancel, result
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from techrevati.agent.cancellation import Cancellation
from techrevati.agent.errors import RunNotActive
from techrevati.agent.events import AnyEvent, Envelope, Envelopes
from techrevati.agent.loop.outcome import Continue, Finished, StepOutcome, Suspended
from techrevati.agent.loop.ports import Inbound
from techrevati.agent.suspension import SuspendedCall, ToolCallDecision
from techrevati.agent.threads.changeset import ThreadChangeSet
from techrevati.agent.threads.store import Exact, ThreadStore


class LiveInbox:
    """Decisions and steering for one live run, from tasks of the same loop."""

    def __init__(self) -> None:
        self._decisions: deque[ToolCallDecision] = deque()
        self._steering: deque[str] = deque()
        self._arrived = asyncio.Event()

    def decide(self, decision: ToolCallDecision) -> None:
        self._decisions.append(decision)
        self._arrived.set()

    def steer(self, text: str) -> None:
        self._steering.append(text)
        self._arrived.set()

    def ring(self) -> None:
        """Have the run look around, as when a child of it has ended."""
        self._arrived.set()

    def take(self) -> Inbound:
        taken = Inbound(tuple(self._decisions), tuple(self._steering))
        self._decisions.clear()
        self._steering.clear()
        self._arrived.clear()
        return taken

    async def wait(self) -> None:
        await self._arrived.wait()


@dataclass(frozen=True, slots=True)
class StoreCommitter:
    """Commits to a store of threads; every write expects the version before it."""

    store: ThreadStore

    async def commit(self, thread_id: str, changeset: ThreadChangeSet, expected: int) -> int:
        return await self.store.append(thread_id, changeset, Exact(expected))


class RunStream:
    """A run that goes on in the background of this loop.

    Attributes:
        events: The run's events, once, from the first; iterate it.
        waiting: While the run is parked, the calls nobody has decided.
    """

    def __init__(
        self,
        thread_id: str,
        run_id: str,
        *,
        now_ms: Callable[[], int],
        listeners: tuple[Callable[[Envelope], None], ...] = (),
    ) -> None:
        self.thread_id, self.run_id = thread_id, run_id
        self.inbox, self.cancellation = LiveInbox(), Cancellation()
        self.waiting: tuple[SuspendedCall, ...] = ()
        self.sink = Envelopes(run_id, thread_id, self._deliver, now_ms=now_ms)
        self._listeners = listeners
        self._events: asyncio.Queue[Envelope | None] = asyncio.Queue()
        self._task: asyncio.Task[StepOutcome] | None = None

    def _deliver(self, envelope: Envelope) -> None:
        self._events.put_nowait(envelope)
        for listen in self._listeners:
            listen(envelope)

    def begin(self, work: Coroutine[Any, Any, StepOutcome]) -> None:
        """Go on in the background; the driver calls it once."""
        self._task = asyncio.ensure_future(self._to_the_end(work))

    async def _to_the_end(self, work: Coroutine[Any, Any, StepOutcome]) -> StepOutcome:
        try:
            return await work
        finally:
            self._events.put_nowait(None)

    def tell(self, event: AnyEvent) -> None:
        """Add an event to the run's stream, as what a child of it shows."""
        if self.is_live:
            self.sink.emit(event, None)

    def ring(self) -> None:
        """Have the run look around."""
        self.inbox.ring()

    @property
    def events(self) -> AsyncIterator[Envelope]:
        return self._read()

    async def _read(self) -> AsyncIterator[Envelope]:
        while (envelope := await self._events.get()) is not None:
            yield envelope

    @property
    def is_live(self) -> bool:
        return self._task is not None and not self._task.done()

    def submit_decision(self, decision: ToolCallDecision) -> None:
        """Answer a call of this run; it may be one that is not parked yet.

        Raises:
            RunNotActive: the run is over; start another on the thread with the decision.
        """
        self._check("a decision")
        self.inbox.decide(decision)

    def steer(self, text: str) -> None:
        """Put a user message into the live run; the model sees it with its next inference.

        Raises:
            RunNotActive: the run is over.
        """
        self._check("a message")
        self.inbox.steer(text)

    def cancel(self, reason: str | None = None) -> None:
        """End the run as cancelled, soon; again, or after its end, changes nothing."""
        self.cancellation.cancel(reason)
        self.inbox.ring()

    def _check(self, what: str) -> None:
        if not self.is_live:
            raise RunNotActive(self.run_id, what)

    async def result(self) -> Finished | Suspended:
        """Wait for the run's end.

        Raises:
            CommitFailed: the end could not be stored.
        """
        assert self._task is not None, "a stream is handed out with its run started"
        outcome = await asyncio.shield(self._task)
        assert not isinstance(outcome, Continue), "a driver stops at an end"
        return outcome

    async def aclose(self) -> None:
        """Cancel the run and wait until it has ended."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait((self._task,))
