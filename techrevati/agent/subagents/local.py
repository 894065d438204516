"""Sub-agents in the process of their parent.

    start ──▶ RunStream of the child ──parked──▶ its questions reach the parent's followers
                                     └──ended──▶ ChildEnd; the parent is woken

Every child is alive while this object is: a restart of the process loses them, and the parents' next runs
find that out.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from techrevati.agent import events
from techrevati.agent.events import Envelope
from techrevati.agent.loop.outcome import Finished
from techrevati.agent.loop.progress import PROGRESS
from techrevati.agent.running import RunStream
from techrevati.agent.subagents.port import ChildEnd, ChildStart, ChildView, SubAgentStatus
from techrevati.agent.suspension import PendingToolCall, SuspendedCall, ToolCallDecision

ASKED = "child.asked"
"""Activity in the stream of each run above a child that asks: who asks what, and the way down to it."""


class Home(Protocol):
    """The driver that children are run by."""

    async def start_child(
        self,
        child: ChildStart,
        on_event: Callable[[Envelope], None],
        on_park: Callable[[tuple[SuspendedCall, ...]], None],
    ) -> RunStream: ...

    def stream(self, run_id: str) -> RunStream | None:
        """Give a live run."""
        ...

    async def last_answer(self, thread_id: str) -> str | None: ...


@dataclass(slots=True)
class _Handle:
    child: ChildStart
    stream: RunStream
    watcher: "asyncio.Task[None] | None" = None
    end: ChildEnd | None = None
    stop_requested: bool = False
    started: list[str] = field(default_factory=list)


class LocalSubAgents:
    """The sub-agents of every run of one driver, by their run id."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._handles: dict[str, _Handle] = {}

    async def start(self, child: ChildStart) -> None:
        known = self._handles.get(child.run_id)
        if known is not None and known.child.epoch >= child.epoch:
            return
        stream = await self._home.start_child(
            child, lambda envelope: self._forward(child, envelope), lambda calls: self._ask(child, calls)
        )
        handle = self._handles[child.run_id] = _Handle(child, stream)
        handle.watcher = asyncio.ensure_future(self._watch(handle))

    async def _watch(self, handle: _Handle) -> None:
        child = handle.child
        try:
            outcome = await handle.stream.result()
        except Exception as error:  # noqa: BLE001  the end could not be stored: to the parent, a failure
            status, told = SubAgentStatus.FAILED, str(error)
        else:
            kind = outcome.reason.type if isinstance(outcome, Finished) else "suspended"
            told = str(outcome.reason.value) if isinstance(outcome, Finished) and kind == "error" else ""
            status = _STATUS.get(kind, SubAgentStatus.COMPLETED)
        output = await self._home.last_answer(child.thread_id)
        if handle.stop_requested:
            status, told = SubAgentStatus.STOPPED, ""
        handle.end = ChildEnd(run_id=child.run_id, epoch=child.epoch, status=status, error=told or None, output=output)
        parent = self._home.stream(child.parent_run_id)
        if parent is not None:
            parent.ring()

    def _forward(self, child: ChildStart, envelope: Envelope) -> None:
        """Show the progress of the child's own calls as the parent's call's; not that of its children."""
        event, parent = envelope.event, self._home.stream(child.parent_run_id)
        if parent is None or child.call_id is None or not isinstance(event, events.ActivitySnapshot):
            return
        if event.activity_type == PROGRESS and event.content.get("run_id") == envelope.run_id:
            parent.tell(events.ActivitySnapshot(f"tool_call:{child.call_id}", PROGRESS, event.content, True))

    def _ask(self, child: ChildStart, calls: tuple[SuspendedCall, ...]) -> None:
        """Show what the child asks to whoever follows its parent, and the parent's parent."""
        handle = self._handles.get(child.run_id)
        if handle is None:
            return
        fresh = [call for call in calls if not call.hold and call.pending.id not in handle.started]
        handle.started.extend(call.pending.id for call in fresh)
        above: ChildStart | None = child
        path: list[str] = []
        asked = [{"call_id": call.call_id, "pending": msgspec.to_builtins(call.pending)} for call in fresh]
        while above is not None and asked:
            parent = self._home.stream(above.parent_run_id)
            path = [above.run_id, *path]
            if parent is not None:
                told = {"child": child.run_id, "agent": child.agent_id, "path": path, "calls": asked}
                parent.tell(events.ActivitySnapshot(f"sub_agent:{child.run_id}", ASKED, told, True))
                for shown in (call.pending for call in fresh):
                    parent.tell(events.ToolCallStart(shown.id, shown.name))
                    parent.tell(events.ToolCallReady(shown.id, shown.name, shown.arguments))
            above = self._child_running(above.parent_run_id)

    def _child_running(self, stream_run_id: str) -> ChildStart | None:
        return next((h.child for h in self._handles.values() if h.stream.run_id == stream_run_id), None)

    async def status(self, run_id: str) -> ChildView | None:
        handle = self._handles.get(run_id)
        if handle is None:
            return None
        return ChildView(
            run_id=run_id,
            epoch=handle.child.epoch,
            alive=handle.end is None,
            end=handle.end,
            pending=self._pending(handle),
        )

    def _pending(self, handle: _Handle) -> tuple[PendingToolCall, ...]:
        """Give what the child, and those it waits for, ask."""
        found: list[PendingToolCall] = []
        for call in handle.stream.waiting:
            below = self._handles.get(call.suspension.id) if call.hold else None
            found.extend((call.pending,) if below is None else self._pending(below))
        return tuple(found)

    async def output(self, run_id: str) -> str | None:
        handle = self._handles.get(run_id)
        return None if handle is None else await self._home.last_answer(handle.child.thread_id)

    async def stop(self, run_id: str) -> None:
        handle = self._handles.get(run_id)
        if handle is None or handle.end is not None:
            return
        handle.stop_requested = True
        for below in [h for h in self._handles.values() if h.child.parent_run_id == handle.stream.run_id]:
            await self.stop(below.child.run_id)
        handle.stream.cancel("its parent stopped it")

    async def message(self, run_id: str, text: str, *, message_id: str = "") -> str | None:
        handle = self._handles.get(run_id)
        if handle is None or handle.end is not None:
            return f"sub-agent {run_id} has ended"
        handle.stream.steer(text)
        return None

    async def decide(self, run_id: str, decision: ToolCallDecision) -> str | None:
        handle = self._handles.get(run_id)
        if handle is None or handle.end is not None:
            return f"sub-agent {run_id} has ended"
        handle.stream.submit_decision(decision)
        return None

    async def aclose(self) -> None:
        """Stop every child and wait for the ends."""
        for run_id in list(self._handles):
            await self.stop(run_id)
        watchers = [h.watcher for h in self._handles.values() if h.watcher is not None]
        if watchers:
            await asyncio.wait(watchers)


_STATUS = {"error": SubAgentStatus.FAILED, "cancelled": SubAgentStatus.STOPPED}
