"""The behaviour that ends runs: counts what a run did, and asks its stop conditions after each answer."""

from collections.abc import Sequence
from typing import ClassVar

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
    own = [message for message in ctx.run_messages if message.run_id == ctx.run_id]
    answers = [m for m in own if m.role is Role.ASSISTANT and not wording.has_mark(m, wording.PARTIAL)]
    called = tuple(call.name for call in response.tool_calls)
    rounds = [tuple(sorted(call.name for call in m.tool_calls)) for m in answers if m.tool_calls]
    if called:
        rounds.append(tuple(sorted(called)))
    spent = _spent(response)
    counted = runtime.total_input_tokens.value + runtime.total_output_tokens.value
    return RunStatistics(
        steps=len(answers) + 1,
        elapsed_ms=_elapsed(ctx, runtime),
        total_tokens=counted + spent.input_tokens + spent.output_tokens,
        consecutive_errors=_errors_in_a_row(answers, own),
        called=called,
        text=response.text,
        rounds=tuple(rounds[-HISTORY:]),
    )


def _elapsed(ctx: ReadOnlyContext, runtime: StopPolicyRuntime) -> int:
    """Give the ms since the run's start, without those it waited for answers from outside."""
    if runtime.started_at_ms is None:
        return 0
    return max(0, ctx.now_ms - runtime.started_at_ms - loop_state(ctx.document).waited_ms)


def _errors_in_a_row(answers: Sequence[Message], own: Sequence[Message]) -> int:
    """Count the latest finished rounds in which every call failed; a round that waits counts for nothing."""
    results = {m.tool_call_id: m for m in own if m.tool_call_id and not wording.has_mark(m, wording.PLACEHOLDER)}
    count = 0
    for answer in reversed(answers):
        found = [results.get(call.id) for call in answer.tool_calls]
        if None in found:
            continue
        if not found or not all(_is_error(result.content) for result in found if result is not None):
            break
        count += 1
    return count


class _Result(msgspec.Struct):
    status: str = ""


def _is_error(content: str) -> bool:
    try:
        return msgspec.json.decode(content, type=_Result).status == ToolStatus.ERROR
    except msgspec.MsgspecError:
        return False
