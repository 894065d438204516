"""Everything about a step that is not decided by the thread it starts from.

    step(agent, checkpoint, ports) ──▶ outcome       same checkpoint, same answers from the ports ▶ same outcome

A driver that records what `model` and `tools` answered, and derives its ids, replays a step after a crash:
same message ids, no second call of a model or a tool whose answer was recorded.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from techrevati.agent.cancellation import Cancellation
from techrevati.agent.events import AnyEvent, EventSink
from techrevati.agent.loop.tool_runs import ToolRun, run_tool
from techrevati.agent.model import ModelPort
from techrevati.agent.subagents.port import SubAgents
from techrevati.agent.suspension import ToolCallDecision
from techrevati.agent.threads.changeset import ThreadChangeSet
from techrevati.agent.threads.ids import NewId, new_id, unix_ms
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import Tool


class Committer(Protocol):
    """Makes a changeset durable, all of it or nothing."""

    async def commit(self, thread_id: str, changeset: ThreadChangeSet, expected: int) -> int:
        """Store it on top of version `expected`; give the new version.  Whatever it raises ends the run."""
        ...


class Elsewhere(Exception):
    """The body of a call is at work outside of this step; a later step asks for it again.  Never leaves the loop."""

    def __init__(self, call_id: str) -> None:
        super().__init__(call_id)
        self.call_id = call_id


class ToolRunner(Protocol):
    """Executes one tool body; a driver journals here (`journal`), and sends calls elsewhere.

    A call is told apart by its id, its attempt and the decision it was resumed with (`call_key`).
    """

    async def run(self, tool: Tool, arguments: Any, ctx: ToolCallContext) -> ToolRun:
        """Give what the body came to.

        Raises:
            Elsewhere: it is at work outside.  The step waits, and what `run` gave for other calls of the round it
                has to give again then.
        """
        ...


class InlineTools:
    """Calls the tool."""

    async def run(self, tool: Tool, arguments: Any, ctx: ToolCallContext) -> ToolRun:
        return await run_tool(tool, arguments, ctx)


@dataclass(frozen=True, slots=True)
class Inbound:
    """What came for a live run: answers, and user messages that steer it."""

    decisions: tuple[ToolCallDecision, ...] = ()
    steering: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.decisions or self.steering)


class Inbox(Protocol):
    """What reaches a run while it is live."""

    def take(self) -> Inbound:
        """Give what came since the last time, and forget it."""
        ...

    async def wait(self) -> None:
        """Return when there is something to take."""
        ...


class GivenInbox:
    """An inbox whose whole content was there when the step began: what a driver that replays steps uses."""

    def __init__(self, decisions: Sequence[ToolCallDecision] = (), steering: Sequence[str] = ()) -> None:
        self._left = Inbound(tuple(decisions), tuple(steering))

    def take(self) -> Inbound:
        taken, self._left = self._left, Inbound()
        return taken

    async def wait(self) -> None:
        if not self._left:
            await asyncio.Event().wait()


class SilentSink:
    """Tells nobody."""

    def emit(self, event: AnyEvent, step_id: str | None) -> None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What a step is given.

    Attributes:
        new_id: Called in an order that depends on the checkpoint and the answers only.
        now_ms: Unix ms.
        sleep: Seconds; waits for backoffs and deadlines.
        chance: In [0, 1), for jitter.
        cancel_grace: Seconds a cancelled tool has to clean up before it is left alone.
    """

    model: ModelPort
    committer: Committer
    sink: EventSink = field(default_factory=SilentSink)
    tools: ToolRunner = field(default_factory=InlineTools)
    inbox: Inbox = field(default_factory=GivenInbox)
    children: SubAgents | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)
    new_id: NewId = new_id
    now_ms: Callable[[], int] = unix_ms
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    cancel_grace: float = 1.0
