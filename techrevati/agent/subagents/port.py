"""Who runs sub-agents: what the loop and its tools ask of it.

    agent_run ──start──▶ SubAgents ──(end of the child)──▶ a decision for the parent's held call

The port also knows who is alive, from whatever its fleet shares (a lease, a heartbeat), never from the
memory of one process.
"""

from enum import StrEnum
from typing import Any, Protocol

import msgspec

from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import Document
from techrevati.agent.suspension import PendingToolCall, ResumeAction, ToolCallDecision
from techrevati.agent.threads.message import Message


class SubAgentStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    """Can be resumed on the same thread."""


class ChildStart(msgspec.Struct, frozen=True, kw_only=True):
    """One start, or one restart, of a child.

    Attributes:
        run_id: The child's id for the parent, the same over restarts; its thread is ``sub-agent-<run_id>``.
        epoch: 1 for the first start; an end that names an older epoch is ignored.
        call_id: The parent's call that waits for the end, or None for a child in the background.
        messages: What the child starts with: forked context, then the prompt.
        above: What binds the child, root agent first and its parent last, as of this start.  It comes along, because
            what the parent's thread says is of another moment: its first turn need not be stored when the child begins.
    """

    run_id: str
    agent_id: str
    epoch: int
    owner_thread_id: str
    parent_run_id: str
    call_id: str | None
    messages: tuple[Message, ...]
    policy: RunPolicy
    above: tuple[Document | None, ...]
    depth: int = 1

    @property
    def thread_id(self) -> str:
        return child_thread_id(self.run_id)


class ChildEnd(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How one start of a child ended."""

    run_id: str
    epoch: int
    status: SubAgentStatus
    error: str | None = None
    output: str | None = None


class ChildView(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the port knows of a child now.

    Attributes:
        alive: Somebody holds it, or it waits for an answer; False: its worker is gone and nobody took over.
        end: How its last start ended, if it did.
        pending: The calls it waits for an answer on.
    """

    run_id: str
    epoch: int
    alive: bool
    end: ChildEnd | None = None
    pending: tuple[PendingToolCall, ...] = ()


class SubAgents(Protocol):
    """Runs children somewhere; every method is safe to call again."""

    async def start(self, child: ChildStart) -> None:
        """Have it run; the same run id and epoch again changes nothing."""
        ...

    async def status(self, run_id: str) -> ChildView | None:
        """Tell how it stands; None: never heard of it."""
        ...

    async def output(self, run_id: str) -> str | None:
        """Give the latest answer in its thread."""
        ...

    async def stop(self, run_id: str) -> None:
        """Cancel it with its own children."""
        ...

    async def message(self, run_id: str, text: str, *, message_id: str = "") -> str | None:
        """Put a user message into the live child, once per id; give the reason if it is refused."""
        ...

    async def decide(self, run_id: str, decision: ToolCallDecision) -> str | None:
        """Hand a decision down to a child that waits for it; give the reason if it is refused."""
        ...


def child_thread_id(run_id: str) -> str:
    return f"sub-agent-{run_id}"


def end_decision(end: ChildEnd, agent_id: str, now_ms: int) -> ToolCallDecision:
    """Turn a child's end into the decision that resolves the call which waits for it (aimed at the run id)."""
    payload: dict[str, Any] = {"run_id": end.run_id, "agent_id": agent_id, "status": end.status.value}
    payload["error"] = end.error
    if end.output is not None:
        payload["output"] = end.output
    return ToolCallDecision(
        end.run_id, f"sub_agent:{end.run_id}:{end.epoch}", ResumeAction.RESUME, payload, None, now_ms
    )
