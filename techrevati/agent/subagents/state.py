"""What a thread knows of the sub-agents it sent out: metadata only, their words are in their own threads.

``sub_agents.runs.<run_id>``; each child has its own place, so that calls of one round never meet there.
"""

from typing import Any, ClassVar

import msgspec

from techrevati.agent.state.document import Document, find
from techrevati.agent.state.notation import Path
from techrevati.agent.state.paths import SUB_AGENTS
from techrevati.agent.state.spec import AnyStateAction, StateSpec
from techrevati.agent.subagents.port import ChildEnd, SubAgentStatus

RUNS: Path = (*SUB_AGENTS, "runs")


class ChildStarted(msgspec.Struct, frozen=True, tag="started"):
    agent_id: str
    thread_id: str
    parent_run_id: str
    background: bool
    at_ms: int


class ChildEnded(msgspec.Struct, frozen=True, tag="ended"):
    epoch: int
    status: SubAgentStatus
    error: str | None = None


class StopRequested(msgspec.Struct, frozen=True, tag="stop_requested"):
    pass


class Announced(msgspec.Struct, frozen=True, tag="announced"):
    """The end of a background child was told to the model."""


class SubAgent(StateSpec):
    """One child.  Each start raises `epoch`; an end of an older one is ignored."""

    PATH = RUNS
    ACTION: ClassVar[object] = ChildStarted | ChildEnded | StopRequested | Announced

    agent_id: str = ""
    thread_id: str = ""
    parent_run_id: str | None = None
    status: SubAgentStatus = SubAgentStatus.RUNNING
    error: str | None = None
    epoch: int = 0
    background: bool = False
    stop_requested: bool = False
    announced: bool = False
    created_at: int = 0

    def reduce(self, action: Any) -> None:
        match action:
            case ChildStarted():
                self.agent_id, self.thread_id = action.agent_id, action.thread_id
                self.parent_run_id, self.background = action.parent_run_id, action.background
                self.created_at = self.created_at or action.at_ms
                self.epoch, self.status, self.error = self.epoch + 1, SubAgentStatus.RUNNING, None
                self.stop_requested = self.announced = False
            case ChildEnded() if action.epoch >= self.epoch:
                stopped = self.stop_requested
                self.status = SubAgentStatus.STOPPED if stopped else action.status
                self.error = None if stopped else action.error
            case StopRequested() if self.status is SubAgentStatus.RUNNING:
                self.stop_requested, self.status = True, SubAgentStatus.STOPPED
            case Announced():
                self.announced = True


def children_of(document: Document) -> dict[str, SubAgent]:
    """Give the thread's children by run id, oldest first."""
    found = find(document, RUNS)
    if not isinstance(found, dict):
        return {}
    known = {run_id: SubAgent.read(stored, (*RUNS, run_id)) for run_id, stored in found.items()}
    return dict(sorted(known.items(), key=lambda entry: (entry[1].created_at, entry[0])))


def about(run_id: str, action: Any) -> AnyStateAction:
    """Make an action on one child."""
    return AnyStateAction.new_at(SubAgent, (*RUNS, run_id), action)


def ended(end: ChildEnd) -> AnyStateAction:
    return about(end.run_id, ChildEnded(end.epoch, end.status, end.error))
