"""Sub-agents of a running turn: start them, wait for them, look after them.

    turn.start_child ──run_start, under the parent's token──▶ a run on a thread of its own, in the parent's partition
    turn.wait_children ─▶ the run waits, holding nothing ─▶ the ends of its children wake it ─▶ turn.children

A start is keyed by the parent's run, its turn and the call's key: a turn that runs again gets the same child.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from techrevati.fleet.asking import aask
from techrevati.fleet.cards import Card
from techrevati.fleet.codec import encode
from techrevati.fleet.listing import record_of
from techrevati.fleet.outcome import Continue, Join, Outcome
from techrevati.fleet.registry import UnknownRole, cards_of
from techrevati.fleet.settings import Settings
from techrevati.fleet.settings import seconds as as_seconds
from techrevati.fleet.starting import digest_of
from techrevati.fleet.versions import reading_messages
from techrevati.store import calls, thread_calls
from techrevati.store.aio import AsyncStore
from techrevati.store.errors import RunNotFound, StoreError
from techrevati.store.keys import CHILD_PREFIX, PartitionKeys, new_id, partition_of_id, roles_key
from techrevati.store.records import InboxEntry, OnBusy, RunRecord, Status
from techrevati.telemetry.tracing import current_traceparent

log = logging.getLogger(__name__)

MESSAGES = 1000


@dataclass(frozen=True, slots=True)
class Child:
    """A sub-agent's run as its parent sees it; `output` is a completed one's, `error` says why another ended."""

    run_id: str
    agent: str
    status: Status
    output: Any = None
    error: Any = None

    @classmethod
    def of(cls, record: RunRecord) -> "Child":
        return cls(record.run_id, record.agent, record.status, record.output, record.error or record.cancelling or None)


@dataclass(slots=True)
class Directory:
    """The agents that a worker knows of: its own fleet module's, and what others have declared since."""

    fleet: str
    store: AsyncStore
    cards: dict[str, Card]

    async def card(self, agent: str) -> Card:
        """Give an agent's card.

        Raises:
            UnknownRole: no process of the fleet has declared it.
        """
        if agent not in self.cards:
            self.cards |= cards_of(await self.store.command("HGETALL", roles_key(self.fleet)))
        if agent not in self.cards:
            raise UnknownRole(agent, self.fleet, list(self.cards))
        return self.cards[agent]


class Children(Mapping[str, Child]):
    """The sub-agents of a run: as a mapping, those that ended since its last turn, by run id."""

    def __init__(
        self,
        directory: Directory,
        keys: PartitionKeys,
        settings: Settings,
        fields: Mapping[str, str],
        run_id: str,
        token: str,
        seam: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._seam = seam
        self._directory, self._store, self._keys, self._settings = directory, directory.store, keys, settings
        self._fields, self._run_id, self._token = fields, run_id, token
        self._ended: dict[str, Child] = {}
        self._entries: list[tuple[str, str]] = []
        self._over: list[str] = []
        self._seen = False

    def __getitem__(self, run_id: str) -> Child:
        self._seen = True
        return self._ended[run_id]

    def __iter__(self) -> Iterator[str]:
        self._seen = True
        return iter(self._ended)

    def __len__(self) -> int:
        self._seen = True
        return len(self._ended)

    async def read_ends(self, inbox: Sequence[InboxEntry]) -> None:
        """Read how the children ended that the inbox tells of; the engine calls it before the turn."""
        ends = [entry for entry in inbox if entry.kind == "child"]
        if not ends:
            return
        told = {entry.body["run_id"]: entry.body["status"] for entry in ends}
        self._entries = [(entry.entry_id, entry.body["run_id"]) for entry in ends]
        found = await self._store.commands([("HGETALL", self._keys.run(run_id)) for run_id in told])
        for (run_id, status), flat in zip(told.items(), found, strict=True):
            record = record_of(run_id, flat)
            known = Child(run_id, "", Status(status)) if record is None else replace(Child.of(record))
            self._ended[run_id] = replace(known, status=Status(status))

    async def start(
        self,
        agent: str,
        input: Any = None,
        *,
        key: str,
        run_id: str | None = None,
        thread_id: str | None = None,
        deadline: float | timedelta | None = None,
        metadata: Mapping[str, Any] | None = None,
        detached: bool = False,
    ) -> str:
        """Start a child, or find the one that this turn started under the key; gives its run id.

        It has the parent's tenant, project, budget and seniority, and at most its deadline.  `thread_id` is an earlier
        child's, to go on with its conversation; `run_id`, if it is given, is derived and stands for itself.  A child is
        stopped when its parent fails, dies or is stopped; a `detached` one only when it is stopped.

        Raises:
            UnknownRole, NotJson, PayloadTooLarge, TooManyChildren, LeaseLost, ValueError.
            IdempotencyConflict: the key was used in this turn for something else.
        """
        card = await self._directory.card(agent)
        if thread_id is not None and not thread_id.startswith(CHILD_PREFIX):
            raise ValueError(f"thread_id={thread_id!r} is refused: a child's begins with {CHILD_PREFIX!r}")
        limit = self._settings.max_payload
        fields = {"input": encode(input, "input", limit)}
        if metadata:
            fields["meta"] = encode(dict(metadata), "metadata", limit)
        if card.winds_up:
            fields["winds"] = "1"
        if detached:
            fields["detached"] = "1"
        fields["root"] = self._fields.get("root") or f"{self._run_id} {self._fields['thread']}"
        if project := self._fields.get("project"):
            fields["project"] = project
        if trace := current_traceparent() or self._fields.get("trace"):
            fields["trace"] = trace
        child_id, turn = run_id or new_id(self._keys.partition), self._fields["turn"]
        spec = calls.StartSpec(
            run_id=child_id,
            tenant=self._fields["tenant"],
            thread_id=thread_id or f"{CHILD_PREFIX}{child_id}",
            role=card.role,
            agent=agent,
            payload_digest=digest_of([agent, fields["input"], fields.get("meta"), thread_id]),
            on_busy=OnBusy.ENQUEUE,
            idem="" if run_id else digest_of(["child", self._run_id, turn, key]),
            idem_key=key,
            deadline=self._deadline(deadline),
            max_attempts=card.max_attempts,
            parent=self._run_id,
            parent_token=self._token,
            fields=fields,
        )
        self._seam("before_child")
        started = await self._store.run(calls.start(self._keys, spec))
        self._seam("after_child")
        return started.run_id

    def _deadline(self, given: float | timedelta | None) -> str:
        own = self._fields.get("deadline")
        ends = [int(own)] if own else []
        if given is not None:
            ends.append(time.time_ns() // 1000 + round(as_seconds(given, "deadline") * 1e6))
        return calls.at(min(ends)) if ends else ""

    async def status(self, run_id: str) -> Child:
        """Give a child as it stands now.

        Raises:
            RunNotFound: it is gone, or no child of this thread.
        """
        return Child.of(await self._record(run_id))

    async def _record(self, run_id: str) -> RunRecord:
        if partition_of_id(run_id) == self._keys.partition:
            record = record_of(run_id, await self._store.command("HGETALL", self._keys.run(run_id)))
            if record is not None and record.parent and record.tenant == self._fields["tenant"]:
                of = await self._store.command("HGET", self._keys.run(record.parent), "thread")
                if self._run_id == record.parent or of == self._fields["thread"]:
                    return record
        raise RunNotFound(run_id)

    async def newest_on(self, thread_id: str) -> RunRecord | None:
        """Give the newest run on a child's thread, whoever of this thread started it; None if there is none."""
        index = self._keys.runsof(self._fields["tenant"], thread_id)
        newest = await self._store.command("ZREVRANGE", index, 0, 0)
        return await self._record(newest[0]) if newest else None

    async def decide(self, run_id: str, call_id: str, action: str, payload: Any, *, decision_id: str) -> bool:
        """Hand a decision down to a child that waits for it."""
        await self._record(run_id)
        said = {"call_id": call_id, "action": action, "payload": payload}
        body = encode(said, "decision", self._settings.max_payload)
        return await self._store.run(calls.inbox_put(self._keys, run_id, decision_id, "decision", call_id, body))

    async def messages(self, run_id: str, *, limit: int = MESSAGES) -> list[Any]:
        """Give the first `limit` messages of a child's conversation, as of its last committed turn."""
        record = await self._record(run_id)
        plan = reading_messages(self._keys, record.tenant, record.thread_id, None, None, limit)
        return (await aask(self._store, plan)).messages

    async def said(self, thread_id: str, version: int, limit: int) -> list[Any]:
        """Give the first `limit` messages that a version of the parent's conversation shows."""
        plan = reading_messages(self._keys, self._fields["tenant"], thread_id, version, None, limit)
        return (await aask(self._store, plan)).messages

    def done_with(self, run_id: str) -> None:
        """Let go of a child when the turn has committed: all it was for is in that commit."""
        self._over.append(run_id)

    async def let_go(self) -> None:
        """Delete the children that the turn is done with; the engine calls it after the commit.

        What fails is left to the retention, and to the deletion of the parent.
        """
        tenant, over, self._over = self._fields["tenant"], self._over, []
        drops = [thread_calls.delete(self._keys, tenant, f"{CHILD_PREFIX}{run_id}") for run_id in over]
        for failed in await asyncio.gather(*map(self._store.run, drops), return_exceptions=True):
            if isinstance(failed, StoreError):
                log.warning("a child of run %s is left to its retention: %s", self._run_id, failed)
            elif isinstance(failed, BaseException):
                raise failed

    async def stop(self, run_id: str, reason: str = "stopped by its parent") -> str:
        """Ask a child and its own children to stop; gives its status after."""
        await self._record(run_id)
        return await self._store.run(calls.cancel(self._keys, run_id, reason, round(self._settings.cancel_grace * 1e6)))

    async def steer(self, run_id: str, message: Any, *, message_id: str = "") -> bool:
        """Put a message into a live child, once where it has an id; a string is what the user says.

        Raises:
            RunNotFound: it is gone, or no child of this thread.
            RunEnded.
        """
        await self._record(run_id)
        said = {"role": "user", "content": message} if isinstance(message, str) else message
        body = encode(said, "message", self._settings.max_payload)
        entry = f"steer:{message_id or f'{time.time_ns():x}{os.urandom(4).hex()}'}"
        return await self._store.run(calls.inbox_put(self._keys, run_id, entry, "steer", "", body))

    async def settle(self, outcome: Outcome) -> Outcome:
        """Count the ends that a wait is for; the engine calls it before the commit is built.

        Whoever ends later is in the inbox by the time of the commit, which counts that too: no end is slept through.
        A wait for all keeps the ends it has been told of, so that the turn which goes on has them together; a wait for
        any keeps those that its turn has not looked at.
        """
        if not isinstance(outcome, Join):
            return outcome
        ids = outcome.run_ids or tuple(sorted(await self._store.command("SMEMBERS", self._keys.kids(self._run_id))))
        # First who is alive, then what the inbox has: whoever ends in between is in both, and counted once.
        *homes, told = await self._store.commands(
            [*(("HGET", self._keys.run(run_id), "home") for run_id in ids), ("HKEYS", self._keys.inbox(self._run_id))]
        )
        alive = {run_id for run_id, home in zip(ids, homes, strict=True) if home}
        kept = {} if outcome.until == "any" and self._seen else {e: of for e, of in self._entries if of in ids}
        read = {entry_id for entry_id, _ in self._entries}
        fresh = {entry_id.split(":")[1] for entry_id in told if entry_id.startswith("child:") and entry_id not in read}
        awaited = alive | set(kept.values()) | fresh.intersection(ids)
        if not awaited:
            return Continue()
        needed = 1 if outcome.until == "any" else len(awaited)
        return replace(outcome, run_ids=tuple(sorted(awaited)), open=needed, kept=tuple(kept))
