"""A turn, as its author sees it.

    claim ─▶ Turn ─▶ await write(turn) ─▶ Outcome ─▶ commit

Nothing here writes to the thread: what a turn changes is gathered and committed as one, or not at all.
Only journaled steps and deltas go to Redis while it runs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar, overload

import msgspec

from techrevati.fleet.answers import OnDelta, OnEvent
from techrevati.fleet.calling import Caller, Refused, Straight
from techrevati.fleet.children import Children
from techrevati.fleet.codec import encode
from techrevati.fleet.conversation import Messages
from techrevati.fleet.journal import Journal, Lines, Policy
from techrevati.fleet.model_calls import ModelCalls
from techrevati.fleet.models import Costs, Message, ModelReply, ModelRequest, Models
from techrevati.fleet.outcome import (
    Ask,
    Complete,
    Continue,
    Decision,
    Fail,
    Handed,
    Handoff,
    Join,
    Outcome,
    Parked,
    Sleep,
    Suspend,
)
from techrevati.fleet.settings import seconds as as_seconds
from techrevati.fleet.state import State
from techrevati.fleet.turn_session import Shared, TurnSession
from techrevati.runtime.orchestrator import AgentSession, AsyncOrchestrationSession
from techrevati.store.records import InboxEntry, decode_json
from techrevati.telemetry.logs import TurnLog, turn_log
from techrevati.telemetry.tracing import trace_id_of

T = TypeVar("T")


class Calls(Protocol):
    """What lets out the calls of a turn; the gates' side of `Turn`."""

    def caller(self, turn: "Turn", ordinal: int) -> Caller:
        """Give what makes a model call; `ordinal` names it among the turn's."""

    def shared(self, turn: "Turn") -> Shared:
        """Give what `turn.session` shares with the fleet."""


class _Straight:
    """Calls go out as they come, and sessions share nothing."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def caller(self, turn: "Turn", ordinal: int) -> Caller:
        return Straight(self._models)

    def shared(self, turn: "Turn") -> Shared:
        return Shared()


class Usage(msgspec.Struct):
    """What a turn has spent."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0


class Turn:
    """One turn of a run: what came in, what may be done, how it ends.

    Attributes:
        number: 1 for the run's first turn; it grows with each commit.
        attempt: 1, and one more for each worker that died in this turn.
        failures: how often this turn raised before.
        input: what `start` was given.
        messages: the thread's conversation; append to it.
        state: the thread's durable state; change it in place.
        handed: the handoff that brought the run here, or None.
        decisions: call id -> what was decided since the last turn.
        steering: messages that were put into the live run since the last turn.
        is_stopping: the run was asked to stop; a turn that hears of it by `CancelledError` may wind up, and return.
    """

    def __init__(
        self,
        *,
        fields: Mapping[str, str],
        run_id: str,
        token: str,
        state: State,
        messages: Messages,
        inbox: Sequence[InboxEntry],
        journal: Mapping[str, str],
        models: Models,
        lines: Lines,
        limit: int,
        park_after: float,
        session: AgentSession | None = None,
        calls: Calls | None = None,
        children: Children | None = None,
        version: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run_id, self.token = run_id, token
        self.thread_id, self.tenant = fields["thread"], fields["tenant"]
        self.project_id = fields.get("project")
        self.role, self.agent = fields["role"], fields.get("agent", fields["role"])
        self.priority = int(fields.get("priority") or 0)
        self.number = int(fields["turn"])
        self.attempt = int(fields.get("attempt") or 0) + 1
        self.failures = int(fields.get("fails") or 0)
        self.state, self.messages = state, messages
        self.usage = Usage()
        self.inbox = inbox
        self.events: list[tuple[str, str]] = []
        self.is_stopping = False
        self._fields, self._lines, self._children = fields, lines, children
        self._version = version
        self._calls: Calls = calls or _Straight(models)
        self._limit, self._park_after, self._clock = limit, park_after, clock
        self._journal = Journal(journal, lines, limit)
        self._under_way = ModelCalls(self._journal, park_after=park_after, waits=self._waits)
        self._session_factory = session
        self._session: TurnSession | None = None
        self._input: Any = None
        self._input_read = False

    # -- what came in ------------------------------------------------------------------------------

    @property
    def input(self) -> Any:
        if not self._input_read:
            text = self._fields.get("input")
            self._input, self._input_read = decode_json(text) if text else None, True
        return self._input

    @cached_property
    def log(self) -> TurnLog:
        """A logger whose lines carry this turn's run, turn and trace ids."""
        return turn_log(
            {
                "run_id": self.run_id,
                "turn": self.number,
                "trace_id": trace_id_of(self.run_id, self._fields.get("trace", "")),
                "role": self.role,
                "tenant": self.tenant,
            }
        )

    @property
    def metadata(self) -> dict[str, Any]:
        text = self._fields.get("meta")
        return dict(decode_json(text)) if text else {}

    @property
    def deadline(self) -> float | None:
        """When the run must have ended, in seconds since the epoch."""
        text = self._fields.get("deadline")
        return int(text) / 1e6 if text else None

    @property
    def root(self) -> tuple[str, str]:
        """Run and thread at the top of the tree of sub-agents that this run is in: its own, if nobody sent it out."""
        run_id, _, thread_id = self._fields.get("root", "").partition(" ")
        return (run_id, thread_id) if run_id else (self.run_id, self.thread_id)

    @property
    def max_payload(self) -> int:
        """How many bytes a message, a state, an event or an output may have."""
        return self._limit

    @property
    def version(self) -> int:
        """The thread's version that this turn builds on; 0 before its first."""
        return self._version

    @property
    def created_ms(self) -> int:
        """When the run was created, in Unix milliseconds."""
        return int(self._fields.get("created") or 0) // 1000

    def now_ms(self) -> int:
        """The time, in Unix milliseconds."""
        return round(self._clock() * 1000)

    @property
    def handed(self) -> Handed | None:
        text = self._fields.get("handed")
        if not text:
            return None
        body = decode_json(text)
        return Handed(body["source"], body["reason"], body["context"])

    @property
    def trail(self) -> tuple[str, ...]:
        """The agents that had the run before, the latest last."""
        text = self._fields.get("handed")
        return tuple(decode_json(text).get("trail", ())) if text else ()

    @property
    def decisions(self) -> dict[str, Decision]:
        found = (
            Decision(e.entry_id, e.body["call_id"], e.body["action"], e.body["payload"], e.body.get("expired", False))
            for e in self.inbox
            if e.kind == "decision"
        )
        return {decision.call_id: decision for decision in found}

    @property
    def steering(self) -> list[Any]:
        return [entry.body for entry in self.inbox if entry.kind == "steer"]

    async def hear(self) -> list[Any]:
        """Give what the user has said to the run since the turn began, or was asked this; the turn has read it then.

        Raises:
            StoreUnreachable.
        """
        known = {entry.entry_id for entry in self.inbox}
        late = [e for e in await self._lines.mail() if e.kind == "steer" and e.entry_id not in known]
        self.inbox = [*self.inbox, *late]
        return [entry.body for entry in late]

    # -- what may be done --------------------------------------------------------------------------

    async def model(
        self,
        name: str,
        messages: Sequence[Message] | str,
        *,
        timeout: float | timedelta = 120.0,
        on_delta: OnDelta | None = None,
        on_event: OnEvent | None = None,
        key: str | None = None,
        costs: Costs | None = None,
        **options: Any,
    ) -> ModelReply:
        """Call a model; the answer is journaled, so a retried turn gets it again and pays nothing.

        Called with `turn.messages` itself, the answer is also appended to the conversation.  Text deltas are
        streamed to whoever follows the run; `on_delta` and `on_event` (see `ModelRequest`) hear them as well, but not
        of an answer that is replayed.

        The journal knows the answer by `key`, or else by the order and the arguments of the turn's calls.

        Where the fleet declares a gate of that name, or a budget, the call is admitted and reserved for first: a
        short wait is waited out, a longer one parks the turn, which holds nothing meanwhile.  `costs` says what the
        call costs buckets of that gate beyond requests and tokens: ``{"images": 2}``, or functions of the request.

        Raises:
            UnknownBucket: `costs` names one that the gate does not have.
            UnknownModel: no client has the name.
            TimeoutError: no answer within `timeout` seconds of being admitted.
            ModelFailed: the provider did not give a whole answer.
            RetryLater: the provider refused for longer than a turn should wait; uncaught, the turn parks.
            BudgetRefused: it does not fit under a limit; the run fails for good if it is not caught.
            GateRefused: its gate is shut, and nobody can tell for how long.
        """
        sent: list[Message] = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        own = self._journal.key("model", [name, sent, options])
        key = own if key is None else f"model:{key}"
        ordinal, begun = self._journal.ordinal, self._clock()
        if (known := self._journal.get(key)) is not None:
            reply = msgspec.json.decode(known, type=ModelReply)
        else:
            ears = {"on_delta": self._ear(on_delta), **({} if on_event is None else {"on_event": on_event})}
            wait = as_seconds(timeout, "timeout")
            request = ModelRequest(name.partition(":")[2] or name, sent, {**options, **ears}, wait, costs or {})
            reply = await self._under_way.make(key, self._calls.caller(self, ordinal), name, request)
        # Also when it was replayed: the events of an attempt that did not commit are gone.
        self._note_model(name, reply, begun)
        if messages is self.messages:
            self.messages.append(reply.message)
        return reply

    def _note_model(self, name: str, reply: ModelReply, begun: float) -> None:
        cost = reply.cost_micros + sum(one["cost_micros"] for one in reply.tried)
        said = {
            "model": reply.model or name,
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "cost_micros": cost,
            "seconds": round(self._clock() - begun, 3),
            "role": self.role,
        }
        self.emit("model.called", {**said, "tried": reply.tried} if reply.tried else said)
        self.usage.input_tokens += reply.input_tokens
        self.usage.output_tokens += reply.output_tokens
        self.usage.cost_micros += cost

    async def calls_end(self) -> None:
        """Wait for the model calls under way: what they cost is paid, so their answers go with the park."""
        await self._under_way.end()

    def stop_calls(self) -> None:
        """Stop the model calls that the turn has left behind."""
        self._under_way.stop()

    async def admitted(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do what a gate or a budget may refuse: a short wait is waited out, a longer one parks the turn."""
        return await self._under_way.admitted(attempt)

    def _waits(self, refused: Refused) -> None:
        """Tell that a gate lets the turn wait; what is parked is told by the park."""
        told = {"gate": refused.model, "why": refused.why, "seconds": round(refused.wait or 0.0, 3)}
        self.note("gate.waits", told)

    @overload
    async def step(self, key: str, fn: Callable[[], Awaitable[T]], *, policy: Policy = "rerun") -> T: ...
    @overload
    async def step(self, key: str, fn: Callable[[], T], *, policy: Policy = "rerun") -> T: ...
    async def step(self, key: str, fn: Callable[[], Any], *, policy: Policy = "rerun") -> Any:
        """Run a side effect once it has succeeded: its result (JSON) is journaled until the turn commits.

        After a crash in the middle, ``rerun`` runs it again; ``once`` never does, and raises instead.

        Raises:
            StepInDoubt: policy ``once``, and an attempt that died had begun it.
            NotJson, PayloadTooLarge: its result cannot be kept.
        """
        return await self._journal.step(key, fn, policy)

    @property
    def children(self) -> Children:
        """The run's sub-agents: a mapping of those that ended since the last turn, and what may be done with any."""
        if self._children is None:
            raise RuntimeError("this turn is not connected to a store, so it has no sub-agents")
        return self._children

    async def start_child(
        self,
        agent: str,
        input: Any = None,
        *,
        key: str | None = None,
        deadline: float | timedelta | None = None,
        metadata: Mapping[str, Any] | None = None,
        detached: bool = False,
    ) -> str:
        """Start another agent on a task of its own, and give its run id; it works while this turn goes on.

        A turn that runs again gets the same child: by `key`, or else by the order and the arguments of its starts.
        Where this run completes, its children go on; where it fails, dies or is stopped, they are stopped, but for a
        `detached` one, which only a stop reaches.

        Raises:
            UnknownRole, NotJson, PayloadTooLarge, TooManyChildren, LeaseLost, IdempotencyConflict.
        """
        name = self._journal.key("child", [agent, input]) if key is None else f"key:{key}"
        return await self.children.start(
            agent, input, key=name, deadline=deadline, metadata=metadata, detached=detached
        )

    async def pause(self, seconds: float | timedelta) -> None:
        """Wait inside the turn; a wait of more than a second gives the place back and the turn resumes here.

        What ran before it is replayed from the journal: put side effects into steps.
        """
        wait, key = as_seconds(seconds, "seconds"), self._journal.key("pause", None)
        known = self._journal.get(key)
        until = float(known) if known is not None else self._clock() + wait
        left = until - self._clock()
        if left <= 0:
            return
        if known is None:
            self._journal.keep(key, repr(until))
        if left > self._park_after:
            self._under_way.parking = True
            raise Parked(left, "timer")
        await asyncio.sleep(left)

    def emit(self, kind: str, data: Any = None) -> None:
        """Add an event to the run's stream; it appears when the turn commits.

        Raises:
            NotJson, PayloadTooLarge.
        """
        if not kind or kind.startswith(("run.", "turn.", "handoff.", "call.", "child.", "gate.", "budget.")):
            raise ValueError(f"event type {kind!r} is refused: it is empty or the runtime's own")
        self.note(kind, data)

    def note(self, kind: str, data: Any = None) -> None:
        """Add an event of the runtime's own; see `emit`."""
        self.events.append((kind, encode({} if data is None else data, f"event {kind}", self._limit)))

    def delta(self, kind: str, data: Any) -> None:
        """Send something to whoever follows the run now; it may be dropped, and is not kept."""
        self._lines.delta(kind, encode(data, f"delta {kind}", self._limit))

    def _ear(self, on_delta: OnDelta | None) -> OnDelta:
        def hear(text: str) -> None:
            self.delta("text.delta", {"text": text, "role": self.role})
            if on_delta is not None:
                on_delta(text)

        return hear

    @property
    def session(self) -> AsyncOrchestrationSession:
        """The in-process session of this agent (`techrevati.runtime`), the same from turn to turn of the run.

        Its events join the run's stream, its usage the run's totals; the permissions, guardrails, policies and
        limits are those of ``fleet.agent(…, session=AgentSession(…))``.
        """
        if self._session is None:
            self._session = TurnSession(
                self._session_factory,
                run_id=self.run_id,
                agent=self.agent,
                role=self.role,
                state=self.state,
                emit=self.emit,
                usage=self.usage,
                shared=self._calls.shared(self),
                thread_id=self.thread_id,
            )
        return self._session.session

    async def settle_children(self, outcome: Outcome) -> Outcome:
        """Count what a wait for sub-agents waits for; the engine calls it before the commit is built."""
        return await self._children.settle(outcome) if self._children is not None else outcome

    def settle_session(self, *, ended: bool) -> None:
        """Keep or end the session, if one was opened; the engine calls it before the commit is built."""
        if self._session is not None:
            self._session.settle(ended=ended)

    def abandon_session(self, error: BaseException) -> None:
        """Let the session settle what it holds: the turn did not succeed."""
        if self._session is not None:
            self._session.abandon(error)
            self._session = None

    # -- how it ends -------------------------------------------------------------------------------

    def complete(self, output: Any = None) -> Outcome:
        """End the run; `output` (JSON) is its result."""
        return Complete(output)

    def continue_(self) -> Outcome:
        """Have another turn as soon as a place is free."""
        return Continue()

    def sleep(self, seconds: float | timedelta) -> Outcome:
        """Have another turn after `seconds`, holding nothing meanwhile."""
        return Sleep(as_seconds(seconds, "seconds"))

    def handoff(self, role: str, *, reason: str = "", context: Mapping[str, Any] | None = None) -> Outcome:
        """Let another agent have the next turn; it sees `context` (JSON) as `turn.handed.context`."""
        return Handoff(role, reason, context or {})

    def suspend(
        self,
        call_id: str,
        payload: Any = None,
        *,
        expires: float | timedelta | None = None,
        default_action: Literal["resume", "cancel"] = "cancel",
        default_payload: Any = None,
        also: Sequence[Ask] = (),
    ) -> Outcome:
        """Wait for a decision, holding no worker; the next turn has it in `turn.decisions[call_id]`."""
        wait = None if expires is None else as_seconds(expires, "expires")
        first = Ask(call_id, payload, (), wait, default_action, default_payload)
        return Suspend((first, *also))

    def wait_children(
        self,
        *run_ids: str,
        until: Literal["all", "any"] = "all",
        expires: float | timedelta | None = None,
    ) -> Outcome:
        """Wait for sub-agents (all of them, if none is named), holding no worker, at most `expires` seconds.

        The next turn has their ends in `turn.children`; of a wait for all, those told before, too.
        It may come sooner: a message wakes the run as well.
        """
        wait = None if expires is None else as_seconds(expires, "expires")
        return Join(run_ids, until, wait)

    def fail(self, error: str, details: Any = None) -> Outcome:
        """End the run as failed: trying again would not mend it."""
        return Fail(error, details)

    # -- the journal -------------------------------------------------------------------------------

    def recall(self, key: str) -> str | None:
        """Give what `keep` noted under this key in this turn, also before a park or a retry."""
        return self._journal.get(f"note:{key}")

    def keep(self, key: str, text: str) -> None:
        """Note something for this turn that its next park or retry carries on."""
        self._journal.keep(f"note:{key}", text)

    def tally(self, key: str) -> int:
        """Count something of this turn; gives how often so far."""
        count = int(self.recall(key) or 0) + 1
        self.keep(key, str(count))
        return count

    def unwritten(self) -> list[tuple[str, str]]:
        """Results that no step has carried to the journal yet; a retry, a park and a drain do."""
        return self._journal.unwritten()
