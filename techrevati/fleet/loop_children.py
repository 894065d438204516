"""Sub-agents of the agent loop as runs of the fleet.

    agent_run ──ChildStart──▶ a child run on ``sub-agent-<id>`` ──its end──▶ the parent's next step asks `status`

The loop names a child by an id of its own, the same over restarts; each start is a run of the fleet, whose id is
derived from that and the epoch, so that a start which is said again changes nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from techrevati.agent.ids import DerivedIds
from techrevati.agent.subagents.port import ChildEnd, ChildStart, ChildView, SubAgentStatus
from techrevati.agent.suspension import PendingToolCall, ToolCallDecision
from techrevati.fleet.loop_ports import Through
from techrevati.fleet.turn import Turn
from techrevati.store.errors import AlreadyDecided, AmbiguousCall, RunEnded, RunNotFound, StoreError, UnknownCall
from techrevati.store.keys import CHILD_PREFIX
from techrevati.store.records import RunRecord, Status

LINEAGE = "sub_agent"
"""Key of a child run's metadata: what its start said beside its messages."""
_STATUSES = {
    Status.COMPLETED: SubAgentStatus.COMPLETED,
    Status.CANCELLED: SubAgentStatus.STOPPED,
    Status.SUPERSEDED: SubAgentStatus.STOPPED,
}


def fleet_id(loop_id: str, partition: str, epoch: int = 1) -> str:
    """Give the run of the fleet that is a child's start of that epoch."""
    own = loop_id if epoch == 1 else DerivedIds(f"{loop_id}:{epoch}", 0)()
    return f"{own.replace('-', '')}.{partition}"


class FleetSubAgents:
    """The children of one run; every method is safe to call again."""

    def __init__(self, turn: Turn) -> None:
        self._turn, self._partition = turn, turn.run_id.rpartition(".")[2]

    def thread_of(self, loop_id: str) -> str:
        return f"{CHILD_PREFIX}{fleet_id(loop_id, self._partition)}"

    async def start(self, child: ChildStart) -> None:
        lineage = {
            "run_id": child.run_id,
            "epoch": child.epoch,
            "call_id": child.call_id,
            "depth": child.depth,
            "parent_run_id": child.parent_run_id,
            "owner_thread_id": child.owner_thread_id,
            "policy": msgspec.to_builtins(child.policy),
            "above": list(child.above),
        }
        try:
            await self._turn.children.start(
                child.agent_id,
                {"messages": msgspec.to_builtins(child.messages)},
                key=f"{child.run_id}:{child.epoch}",
                run_id=fleet_id(child.run_id, self._partition, child.epoch),
                thread_id=self.thread_of(child.run_id),
                metadata={LINEAGE: lineage},
            )
        except StoreError as error:
            raise Through(error) from error

    async def _last(self, loop_id: str) -> RunRecord | None:
        try:
            return await self._turn.children.newest_on(self.thread_of(loop_id))
        except StoreError as error:
            raise Through(error) from error

    async def status(self, run_id: str) -> ChildView | None:
        record = await self._last(run_id)
        if record is None:
            return None
        epoch = int((record.metadata or {}).get(LINEAGE, {}).get("epoch", 1))
        end = None
        if record.status.is_terminal:
            said = record.error.get("message") if isinstance(record.error, Mapping) else record.error
            end = ChildEnd(
                run_id=run_id,
                epoch=epoch,
                status=_STATUSES.get(record.status, SubAgentStatus.FAILED),
                error=said or record.cancelling or None,
                output=await self.output(run_id),
            )
        pending = tuple(
            msgspec.convert(call["payload"]["pending"], PendingToolCall)
            for call in record.waits_for or ()
            if isinstance(call.get("payload"), Mapping) and "pending" in call["payload"]
        )
        return ChildView(run_id=run_id, epoch=epoch, alive=not record.status.is_terminal, end=end, pending=pending)

    async def output(self, run_id: str) -> str | None:
        record = await self._last(run_id)
        if record is None:
            return None
        try:
            said: list[Any] = await self._turn.children.messages(record.run_id)
        except StoreError as error:
            raise Through(error) from error
        return next((one["content"] for one in reversed(said) if one["role"] == "assistant" and one["content"]), None)

    async def _with_live(self, run_id: str, act: Callable[[str], Awaitable[Any]]) -> str | None:
        """Do something to the run that a child is now; give the reason if that is refused."""
        record = await self._last(run_id)
        if record is None:
            return f"sub-agent {run_id} is not known any more"
        if record.status.is_terminal:
            return f"sub-agent {run_id} has ended: it is {record.status}"
        try:
            await act(record.run_id)
        except (RunEnded, RunNotFound, UnknownCall, AlreadyDecided, AmbiguousCall) as refused:
            return str(refused)
        except StoreError as error:
            raise Through(error) from error
        return None

    async def stop(self, run_id: str) -> None:
        await self._with_live(run_id, self._turn.children.stop)

    async def message(self, run_id: str, text: str, *, message_id: str = "") -> str | None:
        return await self._with_live(run_id, lambda live: self._turn.children.steer(live, text, message_id=message_id))

    async def decide(self, run_id: str, decision: ToolCallDecision) -> str | None:
        return await self._with_live(
            run_id,
            lambda live: self._turn.children.decide(
                live, decision.target_id, decision.action.value, decision.result, decision_id=decision.decision_id
            ),
        )
