"""A declared agent on the fleet: one step of the agent loop is one turn.

    turn ─▶ messages, state ─▶ Checkpoint ─▶ step ─▶ Continue | Suspended | Finished ─▶ outcome
                     inbox ─▶ decisions, steering ┘└─▶ messages, state, events of the same commit

Everything a step asked of the outside is in the turn's journal, and its ids are derived from the turn: a turn that
runs again asks nothing twice and makes the same messages.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from techrevati.agent.actions import Phase
from techrevati.agent.agent import Agent
from techrevati.agent.answers import reason_of
from techrevati.agent.cancellation import Cancellation
from techrevati.agent.ids import DerivedIds
from techrevati.agent.loop import records
from techrevati.agent.loop.checkpoint import Checkpoint
from techrevati.agent.loop.outcome import Continue, Finished, StepOutcome, Suspended
from techrevati.agent.loop.phases import has_hooks
from techrevati.agent.loop.ports import Ports
from techrevati.agent.loop.racing import let_go
from techrevati.agent.loop.records import OnSuspend
from techrevati.agent.loop.starting import prepare_run
from techrevati.agent.loop.step import step
from techrevati.agent.output import OUTPUT, is_given
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import Document, apply, find
from techrevati.agent.state.scope import cleanup_of_old_calls
from techrevati.agent.suspension import ResumeAction, SuspendedCall, ToolCallDecision
from techrevati.agent.threads.message import Message, Role
from techrevati.agent.threads.runs import RunOrigin, RunRequest
from techrevati.agent.threads.store import Loaded
from techrevati.agent.threads.thread import Thread
from techrevati.fleet.loop_children import LINEAGE, FleetSubAgents, fleet_id
from techrevati.fleet.loop_ports import FleetModel, Through, TurnCommitter, TurnInbox, TurnSink, loop_message
from techrevati.fleet.loop_tools import KEPT, FleetTools, forget_calls, loop_document
from techrevati.fleet.opening import Opening, opening_of
from techrevati.fleet.outcome import Ask, Join, Outcome, Suspend
from techrevati.fleet.turn import Turn

MODEL_TIMEOUT = 120.0
TASK_GRACE = 5.0
"""Seconds a step that is stopped has to clean up."""
KEPT_CALLS = 16
"""Ended tool calls that the state keeps for audit; older ones are in the messages and in earlier versions."""


def agent_function(agent: Agent, *, model_timeout: float = MODEL_TIMEOUT) -> Callable[[Turn], Awaitable[Outcome]]:
    """Give the function that takes one step of an agent per turn."""

    async def take(turn: Turn) -> Outcome:
        said = list(turn.messages.added)
        opening, steering = _opened(turn)
        stored = tuple(loop_message(said, place) for place, said in enumerate(turn.messages))
        ids, cancellation = DerivedIds(f"{turn.run_id}:{turn.number}", turn.created_ms), Cancellation()
        start = _checkpoint(agent, turn, stored, opening, ids)
        tools = FleetTools(turn, agent.states.actions)
        inbox = TurnInbox(turn, _decisions(turn), steering)
        ports = Ports(
            model=FleetModel(turn, model_timeout, inbox),
            committer=TurnCommitter(),
            sink=TurnSink(turn),
            tools=tools,
            inbox=inbox,
            children=FleetSubAgents(turn),
            cancellation=cancellation,
            new_id=ids,
            now_ms=turn.now_ms,
        )
        try:
            outcome = await _to_its_end(turn, step(agent, start, ports), cancellation)
        except Through as through:
            raise through.error from through
        except BaseException:
            turn.messages.extend(said)  # a cancelled turn keeps what was said to it
            raise
        turn.messages.extend(_wire(message) for message in outcome.checkpoint.messages[len(stored) :])
        document = outcome.checkpoint.document
        _keep(turn, apply(document, cleanup_of_old_calls(document, KEPT_CALLS)))
        tools.keep(waits=isinstance(outcome, Suspended) and outcome.outside)
        if isinstance(outcome, Finished):
            await _leave(tools)
        return _ended(turn, outcome, tools)

    return take


def winds_up(agent: Agent) -> bool:
    """Say whether a run's end has hooks: a run that is cancelled while it waits then has a turn for them."""
    return has_hooks(agent.behaviors, Phase.RUN_END)


async def _to_its_end(turn: Turn, work: Coroutine[Any, Any, StepOutcome], cancellation: Cancellation) -> StepOutcome:
    """Take a step; of a run that is asked to stop, the loop itself makes the end, hooks and all."""
    if turn.is_stopping:
        cancellation.cancel()
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not turn.is_stopping or task.cancelled():
            await let_go(task, TASK_GRACE)
            raise
        if (current := asyncio.current_task()) is not None:
            current.uncancel()
    cancellation.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        await let_go(task, TASK_GRACE)
        raise


def _opened(turn: Turn) -> tuple[list[Any], tuple[str, ...]]:
    """Take back what the engine put into the conversation: the loop says itself when a message is part of it."""
    steers = [body for body in turn.steering if isinstance(body, dict) and "role" in body]
    added = list(turn.messages.added)
    turn.messages.added.clear()
    texts = tuple(str(body.get("content", "")) for body in steers)
    return added[: len(added) - len(steers)], texts


def _checkpoint(
    agent: Agent, turn: Turn, stored: tuple[Message, ...], opening: list[Any], ids: DerivedIds
) -> Checkpoint:
    """Give what the step starts from: the thread, prepared for the run if this is its first turn with this agent."""
    document = loop_document(turn.state)
    plan = records.run_plan(document)
    if plan is not None and plan.identity.agent_id == agent.id and turn.number > 1:
        if plan.identity.run_id != turn.run_id:  # a fork goes on where its source stood
            document = _adopted(turn, document, plan)
        return Checkpoint(turn.thread_id, stored, document, turn.version)
    forget_calls(turn.state)  # of a run before this one, that ended while a round of it waited
    lineage = turn.metadata.get(LINEAGE, {})
    asked = opening_of(turn.input) if turn.number == 1 else Opening()
    said = tuple(loop_message({"id": ids(), **one}, len(stored)) for one in opening)
    request = RunRequest(
        agent_id=agent.id,
        thread_id=turn.thread_id,
        run_id=turn.run_id,
        parent_run_id=lineage.get("parent_run_id", asked.parent_run_id),
        parent_thread_id=lineage.get("owner_thread_id"),
        origin=RunOrigin.SUBAGENT if lineage else RunOrigin.USER,
        state=asked.state,
        messages=said,
        initial_decisions=asked.decisions,
    )
    ready = prepare_run(
        agent,
        request,
        Loaded(Thread(id=turn.thread_id, messages=stored, state=document), turn.version),
        now_ms=turn.now_ms(),
        policy=msgspec.convert(lineage["policy"], RunPolicy) if lineage else asked.policy,
        on_suspend=OnSuspend.PARK,
        parent_tool_call_id=lineage.get("call_id"),
        depth=lineage.get("depth", 0),
        above=tuple(lineage.get("above", ())),
        make_id=ids,
    )
    return ready.checkpoint


def _adopted(turn: Turn, document: Document, plan: records.RunPlan) -> Document:
    identity = msgspec.structs.replace(plan.identity, run_id=turn.run_id, thread_id=turn.thread_id)
    document = apply(document, records.set_plan(msgspec.structs.replace(plan, identity=identity)))
    run = records.run_state(document)
    return {**document, "__run": {**document["__run"], "id": turn.run_id}} if run is not None else document


def _decisions(turn: Turn) -> tuple[ToolCallDecision, ...]:
    """Give what was decided outside; what nobody decided in time, the loop decides by its own clock.

    A payload that is a text says why a call was cancelled, and nothing else.
    """
    found = []
    for one in turn.decisions.values():
        if one.expired:
            continue
        reason = reason_of(one.payload) if one.action == "cancel" else None
        result = None if reason is not None and reason == one.payload else one.payload
        found.append(
            ToolCallDecision(one.call_id, one.decision_id, ResumeAction(one.action), result, reason, turn.now_ms())
        )
    return tuple(found)


def _wire(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = msgspec.to_builtins(message)
    return wire


def _keep(turn: Turn, document: Document) -> None:
    for key in [key for key in turn.state if key not in document and not key.startswith(KEPT)]:
        del turn.state[key]
    for key, value in document.items():
        if key not in turn.state or turn.state[key] != value:
            turn.state[key] = value


async def _leave(tools: FleetTools) -> None:
    try:
        await tools.stop_left()
    except Through as through:
        raise through.error from through


def _ended(turn: Turn, outcome: StepOutcome, tools: FleetTools) -> Outcome:
    match outcome:
        case Continue():
            return turn.continue_()
        case Suspended(_, calls, _, expires_at, True):
            left, held = _left(turn, expires_at), _children(turn, calls)
            return Join((*held, *tools.sent), "any" if held else "all", left, tools=tools.sent)
        case Suspended(_, calls, _, expires_at):
            return _suspended(turn, calls, expires_at)
        case Finished(checkpoint, reason, response):
            if reason.type == "cancelled" and turn.is_stopping:
                return turn.continue_()  # the commit of a run that was asked to stop is its end
            if reason.type in ("error", "cancelled"):
                return turn.fail(str(reason.value or reason.type), {"termination": msgspec.to_builtins(reason)})
            if is_given(checkpoint.document):
                return turn.complete(find(checkpoint.document, (*OUTPUT, "value")))
            if reason.type == "natural_end":
                return turn.complete(response)
            answers = (m.content for m in reversed(checkpoint.messages) if m.role is Role.ASSISTANT and m.content)
            return turn.complete({"response": next(answers, None), "termination": msgspec.to_builtins(reason)})


def _suspended(turn: Turn, calls: tuple[SuspendedCall, ...], expires_at: int | None) -> Outcome:
    """Wait: for answers from outside if any is asked for (a child's end wakes the run then, too), else for children."""
    asked = [call for call in calls if not call.hold]
    if not asked:
        return Join(_children(turn, calls), "all", _left(turn, expires_at))
    asks = []
    for call in asked:
        aliases = tuple(dict.fromkeys(one for one in (call.suspension.id, call.pending.id) if one != call.call_id))
        payload = {"suspension": msgspec.to_builtins(call.suspension), "pending": msgspec.to_builtins(call.pending)}
        wait = None if call.expires_at is None else max(0.0, (call.expires_at - turn.now_ms()) / 1000)
        asks.append(Ask(call.call_id, payload, aliases, wait))
    return Suspend(tuple(asks))


def _left(turn: Turn, at_ms: int | None) -> float | None:
    return None if at_ms is None else max(0.0, (at_ms - turn.now_ms()) / 1000)


def _children(turn: Turn, calls: tuple[SuspendedCall, ...]) -> tuple[str, ...]:
    partition = turn.run_id.rpartition(".")[2]
    return tuple(fleet_id(call.suspension.id, partition, _epoch(call)) for call in calls if call.hold)


def _epoch(call: SuspendedCall) -> int:
    parameters = call.suspension.parameters
    return int(parameters.get("epoch", 1)) if isinstance(parameters, dict) else 1
