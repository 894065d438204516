"""The behaviour that ends runs: counts what a run did, and asks its stop conditions after each answer."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import msgspec

from techrevati.agent import wording
from techrevati.agent.actions import ActionSet, AfterInferenceAction, Effect, LifecycleAction, Terminate
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.loop.records import loop_state
from techrevati.agent.model import StreamResult
from techrevati.agent.state.paths import STOP_POLICY
from techrevati.agent.state.registers import GCounter
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.spec import AnyStateAction, StateSpec
from techrevati.agent.stopping import HISTORY, RunStatistics, StopCondition, StopPolicy, first_match
from techrevati.agent.threads.message import Message, Role
from techrevati.agent.tools import ToolStatus


class Started(msgspec.Struct, frozen=True, tag="started"):
    at_ms: int


class Spent(msgspec.Struct, frozen=True, tag="spent"):
    input_tokens: int
    output_tokens: int


class StopPolicyRuntime(StateSpec):
    """Counters of one run; they only grow."""

    PATH = STOP_POLICY
    SCOPE = StateScope.RUN
    ACTION: ClassVar[object] = Started | Spent

    started_at_ms: int | None = None
    total_input_tokens: GCounter = msgspec.field(default_factory=GCounter)
    total_output_tokens: GCounter = msgspec.field(default_factory=GCounter)

    def reduce(self, action: Started | Spent) -> None:
        if isinstance(action, Started):
            self.started_at_ms = action.at_ms if self.started_at_ms is None else self.started_at_ms
        else:
            self.total_input_tokens.increment(action.input_tokens)
            self.total_output_tokens.increment(action.output_tokens)


class StopPolicyBehavior(AgentBehavior):
    """Asks declared conditions in their order, then policies."""

    id = "stop_policy"
    states = (StopPolicyRuntime,)

    def __init__(self, conditions: Sequence[StopCondition | StopPolicy]) -> None:
        self._conditions = tuple(conditions)

    async def run_start(self, ctx: ReadOnlyContext) -> Effect[LifecycleAction]:
        return AnyStateAction.new(StopPolicyRuntime, Started(ctx.now_ms))

    async def after_inference(self, ctx: ReadOnlyContext) -> Effect[AfterInferenceAction]:
        if ctx.response is None:
            return None
        spent = _spent(ctx.response)
        counted: ActionSet[AfterInferenceAction] = ActionSet(
            (AnyStateAction.new(StopPolicyRuntime, spent),) if spent.input_tokens or spent.output_tokens else ()
        )
        reason = first_match(self._conditions, statistics(ctx, ctx.response))
        return counted if reason is None else counted.and_(Terminate(reason))


def _spent(response: StreamResult) -> Spent:
    usage = response.usage
    if usage is None:
        return Spent(0, 0)
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if prompt is None and completion is None:
        return Spent(usage.total_tokens or 0, 0)
    return Spent(prompt or 0, completion or 0)


def statistics(ctx: ReadOnlyContext, response: StreamResult) -> RunStatistics:
    """Count what this run did up to `response`, which is not among its messages yet."""
    runtime = ctx.scoped_state_of(StopPolicyRuntime)
    called = tuple(call.name for call in response.tool_calls)
    past = _past(ctx.run_messages, ctx.run_id)
    rounds = [*past.rounds, tuple(sorted(called))] if called else past.rounds
    spent = _spent(response)
    counted = runtime.total_input_tokens.value + runtime.total_output_tokens.value
    return RunStatistics(
        steps=past.answers + 1,
        elapsed_ms=_elapsed(ctx, runtime),
        total_tokens=counted + spent.input_tokens + spent.output_tokens,
        consecutive_errors=past.errors,
        called=called,
        text=response.text,
        rounds=tuple(rounds[-HISTORY:]),
    )


class _Past(NamedTuple):
    """What a run's messages say: its answers, its latest rounds, and how many of them failed in a row."""

    answers: int
    rounds: list[tuple[str, ...]]
    errors: int


def _past(messages: Sequence[Message], run_id: str) -> _Past:
    """Look at a run's messages from the last one back, no further than each count needs.

    A round failed if every call of it did; one that waits for a result counts for nothing.
    """
    answers, errors, unbroken = 0, 0, True
    rounds: list[tuple[str, ...]] = []
    results: dict[str | None, Message] = {}
    for message in reversed(messages):
        if message.run_id != run_id:
            continue
        if message.role is Role.TOOL:
            if unbroken and not wording.has_mark(message, wording.PLACEHOLDER):
                results.setdefault(message.tool_call_id, message)
        elif message.role is Role.ASSISTANT and not wording.has_mark(message, wording.PARTIAL):
            answers += 1
            if message.tool_calls and len(rounds) < HISTORY:
                rounds.append(tuple(sorted(call.name for call in message.tool_calls)))
            found = [results.get(call.id) for call in message.tool_calls] if unbroken else [None]
            if None not in found:
                unbroken = bool(found) and all(_is_error(result.content) for result in found if result is not None)
                errors += unbroken
    return _Past(answers, rounds[::-1], errors)


def _elapsed(ctx: ReadOnlyContext, runtime: StopPolicyRuntime) -> int:
    """Give the ms since the run's start, without those it waited for answers from outside."""
    if runtime.started_at_ms is None:
        return 0
    return max(0, ctx.now_ms - runtime.started_at_ms - loop_state(ctx.document).waited_ms)


class _Result(msgspec.Struct):
    status: str = ""


def _is_error(content: str) -> bool:
    try:
        return msgspec.json.decode(content, type=_Result).status == ToolStatus.ERROR
    except msgspec.MsgspecError:
        return False
