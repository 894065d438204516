"""The first half of a step: one inference, and what its answer means for the run.

step_start ▶ before_inference ▶ request ▶ model ▶ after_inference ▶ answer stored ▶ step_end ▶ commit
                                            └─ broke ▶ closed, to be taken up    └─ calls ▶ the tool round
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from techrevati.agent import events, output, wording
from techrevati.agent.actions import Phase, Target, Terminate
from techrevati.agent.definition import OutputSpec
from techrevati.agent.endings import NATURAL_END, TerminationReason, failed
from techrevati.agent.loop import applying, resuming
from techrevati.agent.loop.inference import Answer, Broken, Failed, infer
from techrevati.agent.loop.live import Live
from techrevati.agent.loop.outcome import Continue, StepOutcome
from techrevati.agent.loop.phases import Asked
from techrevati.agent.loop.racing import cut_short_by
from techrevati.agent.loop.request import assemble, gather, throttled
from techrevati.agent.model import ModelRequest, StopReason, settled_stop_reason
from techrevati.agent.retries import candidates
from techrevati.agent.threads.changeset import CheckpointReason
from techrevati.agent.threads.message import ToolCall
from techrevati.agent.tools import ToolDescriptor

MOST_CONTINUATIONS = 3


@dataclass(frozen=True, slots=True)
class ToolsAsked:
    """The answer is stored, and its calls are to be carried out."""

    calls: tuple[ToolCall, ...]
    index: int


async def answer(live: Live) -> StepOutcome | ToolsAsked:
    """Call the model once, and store what it answered.

    Gives the step's outcome, or the calls that are to be carried out before there is one.

    Raises:
        CutShort: the run was cancelled, or its deadline came; nothing of the inference is kept.
    """
    draft, definition = live.draft, live.agent.definition
    index = draft.loop.steps
    offered = live.agent.offered(draft.policy)
    await live.phase(Phase.STEP_START, tools=offered)
    asked = await live.phase(Phase.BEFORE_INFERENCE, tools=offered)
    if terminations := asked.of(Terminate):
        return await live.finish(terminations[-1].reason)
    request = _request(live, asked, offered, index)
    message_id = live.ports.new_id()
    draft.step_id = f"step:{index}"
    draft.tell_now(events.StepStart(message_id))
    models = candidates(request.model, (definition.model, *definition.fallback_models))
    call_models = partial(
        infer,
        live.ports,
        request,
        models[min(draft.loop.model_offset, len(models) - 1) :],
        definition.retry,
        message_id=message_id,
        tell=draft.tell_now,
        may_take_up=draft.loop.stream_retries < definition.retry.max_stream_event_retries,
    )
    outcome = await cut_short_by(live.ports, lambda: live.while_live(call_models()), deadline_ms=live.deadline_ms)
    match outcome:
        case Answer():
            return await _answered(live, outcome, message_id, index, request)
        case Broken():
            return await _taken_up(live, outcome, message_id, index)
        case Failed():
            return await _failed(live, outcome)


def _request(live: Live, asked: Asked, offered: tuple[ToolDescriptor, ...], index: int) -> ModelRequest:
    draft, definition = live.draft, live.agent.definition
    wishes = gather(asked.actions, offered)
    shown, patch = throttled(draft.document, wishes.context)
    draft.apply(patch)
    for message in shown:
        if message.target is Target.CONVERSATION:
            applying.add_message(draft, applying.context_note(draft, message), index)
    return assemble(
        definition.instructions,
        shown,
        draft.view(),
        wishes,
        model=wishes.model or definition.model,
        options=definition.options,
    )


async def _failed(live: Live, outcome: Failed) -> StepOutcome:
    await live.phase(Phase.AFTER_INFERENCE, inference_error=outcome.error)
    await live.phase(Phase.STEP_END)
    live.draft.tell(events.StepEnd())
    live.draft.step_id = None
    live.draft.tell(events.ErrorEvent(str(outcome.error), "LLM_ERROR"))
    await resuming.close_held(live.draft, "the run that waited for it has failed")
    return await live.finish(failed(str(outcome.error)))


async def _taken_up(live: Live, broken: Broken, message_id: str, index: int) -> StepOutcome:
    """Close the step whose stream broke, so that the next one goes on where it ended, or begins again."""
    draft, received = live.draft, broken.received
    loop, limit = draft.loop, live.agent.definition.retry.stream_error_fallback_threshold
    failures = loop.stream_failures + 1
    draft.set_loop(
        stream_retries=loop.stream_retries + 1,
        stream_failures=0 if failures >= limit else failures,
        model_offset=loop.model_offset + (failures >= limit),
    )
    if received.text and not received.call_started:
        partial = wording.assistant(message_id, received.text, (), mark=wording.PARTIAL)
        applying.add_message(draft, partial, index)
        applying.add_message(draft, wording.go_on(live.ports.new_id(), wording.CONTINUE_BROKEN), index)
        draft.set_loop(prefix=loop.prefix + received.text)
    await live.phase(Phase.STEP_END)
    draft.tell(events.StepEnd())
    draft.step_id = None
    live.steer()
    await draft.commit(CheckpointReason.ASSISTANT_TURN_COMMITTED)
    return Continue(draft.committed)


async def _answered(
    live: Live, given: Answer, message_id: str, index: int, request: ModelRequest
) -> StepOutcome | ToolsAsked:
    draft, result = live.draft, given.result
    result = msgspec.structs.replace(result, stop_reason=settled_stop_reason(result, request.max_output_tokens))
    draft.tell(events.InferenceComplete(given.model, given.duration_ms, result.usage))
    asked = await live.phase(Phase.AFTER_INFERENCE, response=result)
    calls = result.tool_calls
    applying.add_message(draft, wording.assistant(message_id, result.text, calls), index)
    await live.phase(Phase.STEP_END, response=result)
    terminations = asked.of(Terminate)
    reason = terminations[-1].reason if terminations else None
    loop, text = draft.loop, draft.loop.prefix + result.text
    cut_off = result.stop_reason is StopReason.MAX_TOKENS and not calls and reason is None
    goes_on = cut_off and loop.continuations < MOST_CONTINUATIONS
    to_do = bool(calls) and (reason is None or reason.type == "stopped")
    missing = _missing_output(live) if reason is None and not calls and not goes_on else None
    ends = not to_do and not goes_on and missing is None
    draft.set_loop(
        steps=index + 1,
        stream_failures=0,
        continuations=loop.continuations + goes_on,
        prefix=text if goes_on else "",
        stop=_wire(reason or NATURAL_END) if ends else _wire(reason) if reason is not None and to_do else None,
        open_step=index if to_do else None,
    )
    if goes_on:
        applying.add_message(draft, wording.go_on(live.ports.new_id(), wording.CONTINUE_TRUNCATED), index)
    draft.tell(events.StepEnd())
    await draft.commit(CheckpointReason.ASSISTANT_TURN_COMMITTED)
    draft.step_id = None
    if to_do:
        return ToolsAsked(calls, index)
    if missing is not None:
        return await _corrected(live, missing, index)
    if goes_on or (reason is None and live.is_called_on()):
        draft.set_loop(stop=None)
        return await live.go_on()
    return await live.finish(reason or NATURAL_END, text)


def _wire(reason: TerminationReason) -> dict[str, Any]:
    wire: dict[str, Any] = msgspec.to_builtins(reason)
    return wire


def _missing_output(live: Live) -> OutputSpec | None:
    spec = live.agent.definition.output
    return None if spec is None or output.is_given(live.draft.document) else spec


async def _corrected(live: Live, spec: OutputSpec, index: int) -> StepOutcome:
    """Ask again for the output the answer ended without."""
    corrections = live.draft.loop.corrections
    if corrections >= spec.corrections:
        return await live.finish(failed(f"the model ended without calling {spec.tool_name!r}"))
    live.draft.set_loop(corrections=corrections + 1)
    applying.add_message(live.draft, wording.go_on(live.ports.new_id(), output.correction(spec)), index)
    return await live.go_on()
