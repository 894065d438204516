"""Tool calls of the agent loop on a fleet: most run here, those of a tool with a role in that role's pool.

    call ─▶ FleetTools ─┬─ no role ─▶ the tool, journaled
                        └─ role ────▶ a run of ``tool:<id>`` in its pool ─▶ Elsewhere: the run waits for all of them
    the last has ended ─▶ the round is carried out again ─▶ every call gives what it gave, and the round is taken in

While a round waits, what its calls gave stands in the thread's state, a key for each call, and is read by nobody else.
"""

from typing import Any

import msgspec

from techrevati.agent.actions import WrongPhase
from techrevati.agent.ids import DerivedIds
from techrevati.agent.journal import JournaledTools, call_key
from techrevati.agent.loop.ports import Elsewhere
from techrevati.agent.loop.tool_runs import ToolRun, decode_run, encode_run
from techrevati.agent.state.document import Document
from techrevati.agent.state.wiring import ActionRegistry
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import Tool, ToolResult, role_of
from techrevati.fleet.children import Child
from techrevati.fleet.loop_ports import Through, TurnJournal
from techrevati.fleet.pool_calls import Conversation, HeldTools, PoolCall
from techrevati.fleet.state import State
from techrevati.fleet.turn import Turn
from techrevati.store.errors import NotJson, PayloadTooLarge, RunEnded, RunNotFound, StoreError, TooManyChildren
from techrevati.store.keys import CALL_PREFIX
from techrevati.store.records import Status

KEPT = "__call:"
"""Begins the keys of a thread's state under which calls of an open round are kept."""


def loop_document(state: State) -> Document:
    """Give the state as the loop has it: without what is kept for an open round."""
    return {key: state[key] for key in state if not key.startswith(KEPT)}


def forget_calls(state: State) -> None:
    """Take away what an open round has kept: it is over, or its run is."""
    for key in [key for key in state if key.startswith(KEPT)]:
        del state[key]


class FleetTools:
    """The tools of one turn.

    Attributes:
        sent: Calls at work in their pools, as of this turn: tool and role by the run that is the call.
    """

    def __init__(self, turn: Turn, states: ActionRegistry) -> None:
        self.sent: dict[str, dict[str, str]] = {}
        self._turn, self._states = turn, states
        self._here = JournaledTools(HeldTools(turn.max_payload), TurnJournal(turn), states)
        self._kept: dict[str, Any] = {
            key.removeprefix(KEPT): turn.state[key] for key in turn.state if key.startswith(KEPT)
        }
        self._done: dict[str, ToolRun] = {}
        self._waits: dict[str, str] = {}

    async def run(self, tool: Tool, arguments: Any, ctx: ToolCallContext) -> ToolRun:
        """Give what a call came to, here or in its pool.

        Raises:
            Elsewhere: it is at work in its pool.
            Through: a fault of the store.
        """
        key = call_key(ctx)
        if key in self._done:
            return self._done[key]
        kept = self._kept.get(key, {})
        if "run" in kept:
            done = decode_run(kept["run"], self._states)
        elif role_of(tool) is None:
            done = await self._here.run(tool, arguments, ctx)
        else:
            sent = kept.get("child") if kept.get("of") == self._turn.run_id else None  # a fork sends its own
            done = await self._in_pool(key, sent, tool, arguments, ctx)
        self._done[key] = done
        return done

    async def _in_pool(self, key: str, child: str | None, tool: Tool, arguments: Any, ctx: ToolCallContext) -> ToolRun:
        if key in self._waits:
            raise Elsewhere(ctx.call_id)
        try:
            if child is None:
                child = self._name(key)
                await self._send(child, tool, arguments, ctx)
            elif (done := await self._end(child, tool.descriptor.id)) is not None:
                return done
        except (NotJson, PayloadTooLarge, TooManyChildren) as error:
            text = f"it could not be sent to the pool {role_of(tool)!r}: {error}"
            return ToolRun(ToolResult.error(tool.descriptor.id, text, code="not_sent"))
        except StoreError as error:
            raise Through(error) from error
        self._waits[key] = child
        self.sent[child] = {"tool": tool.descriptor.id, "role": str(role_of(tool))}
        raise Elsewhere(ctx.call_id)

    def _name(self, key: str) -> str:
        """Name the run that is a call: a turn that runs again finds the one it sent, a later call of that id not."""
        own = DerivedIds(f"{self._turn.run_id}:{self._turn.number}:{key}", self._turn.created_ms)()
        return f"{own.replace('-', '')}.{self._turn.run_id.rpartition('.')[2]}"

    async def _send(self, child: str, tool: Tool, arguments: Any, ctx: ToolCallContext) -> None:
        turn, sees_state = self._turn, bool(getattr(tool, "takes_context", True))
        conversation = None
        if sees_state and getattr(tool, "sees", "thread") == "thread":
            stored = len(turn.messages) - len(turn.messages.added)
            conversation = Conversation(turn.version, stored, tuple(ctx.messages[stored:]))
        call = PoolCall(
            tool=tool.descriptor.id,
            call_id=ctx.call_id,
            arguments=arguments,
            identity=ctx.identity,
            policy=ctx.policy,
            document=ctx.document if sees_state else {},
            conversation=conversation,
            resume=ctx.resume_input,
            scratch=ctx.scratch,
            attempt=ctx.attempt,
            started_at_ms=ctx.started_at_ms,
            deadline_ms=ctx.deadline_ms,
            depth=ctx.depth,
        )
        left = None if ctx.deadline_ms is None else max(0.0, (ctx.deadline_ms - turn.now_ms()) / 1000)
        agent = f"{CALL_PREFIX}{tool.descriptor.id}"
        await turn.children.start(agent, msgspec.to_builtins(call), key=agent, run_id=child, deadline=left)

    async def _end(self, child: str, tool: str) -> ToolRun | None:
        """Give what a call in its pool came to; None while it is at work."""
        try:
            record = self._turn.children.get(child) or await self._turn.children.status(child)
        except RunNotFound:
            return ToolRun(ToolResult.error(tool, "what it came to has been deleted", code="lost"))
        if not record.status.is_terminal:
            return None
        if record.status is not Status.DEAD:  # an operator may want to know of what
            self._turn.children.done_with(child)
        return _came_to(record, tool, self._states)

    def keep(self, *, waits: bool) -> None:
        """Write down what the round has so far, if it waits; else forget it."""
        state = self._turn.state
        if not waits:
            forget_calls(state)
            return
        for key, done in self._done.items():
            if "run" not in self._kept.get(key, {}):
                state[KEPT + key] = {"run": encode_run(done)}
        for key, child in self._waits.items():
            if self._kept.get(key, {}).get("child") != child:
                state[KEPT + key] = {"child": child, "of": self._turn.run_id}

    async def stop_left(self) -> None:
        """Stop the calls that the run has left behind."""
        known = (kept["child"] for key, kept in self._kept.items() if "child" in kept and key not in self._done)
        for child in dict.fromkeys((*known, *self.sent)):
            try:
                await self._turn.children.stop(child, "the run that made the call has ended")
            except (RunEnded, RunNotFound):
                continue
            except StoreError as error:
                raise Through(error) from error


def _came_to(record: Child, tool: str, states: ActionRegistry) -> ToolRun:
    """Read the end of a call's run: what its tool gave, or for the model why it gave nothing.

    Raises:
        WrongPhase: the tool asked for what a tool may not ask for.
    """
    if record.status is Status.COMPLETED:
        return decode_run(record.output, states)
    said = record.error
    details = said.get("details") if isinstance(said, dict) else None
    if isinstance(details, dict) and "wrong_phase" in details:
        raise WrongPhase(*details["wrong_phase"])
    why = said.get("message", said) if isinstance(said, dict) else said
    return ToolRun(ToolResult.error(tool, f"{record.status.value} in its pool: {why}", code=record.status.value))
