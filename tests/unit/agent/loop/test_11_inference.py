"""§11 of the agent semantics: retries, fallback models, broken streams, continuation, cancellation."""

import asyncio
from typing import Any

import pytest

from techrevati.agent import wording
from techrevati.agent.endings import CANCELLED
from techrevati.agent.events import ErrorEvent, RunFinish, StreamReset, TextDelta, ToolCallCancelled
from techrevati.agent.loop.outcome import Finished
from techrevati.agent.model import (
    ErrorClass,
    InferenceError,
    StopReason,
    StreamResult,
    TextPiece,
    TokenUsage,
    settled_stop_reason,
)
from techrevati.agent.retries import Again, GiveUp, LlmRetryPolicy, NextModel, after_failure, backoff_ms, candidates
from techrevati.agent.threads.message import Role, ToolCall, Visibility
from techrevati.agent.tools import ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.scripted import Script, World, agent, broken, calls, of_type, said, tool_results, types


def refused(kind: ErrorClass, where: Any = "llm_exec_error") -> InferenceError:
    return InferenceError("no", where, kind)


def cut(kind: ErrorClass = ErrorClass.CONNECTION) -> InferenceError:
    return InferenceError("cut", "llm_stream_event_error", kind)


@tool
def add(a: int = 0) -> int:
    """Add."""
    return a


# -- 11.1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "limit", "reason"),
    [
        (StreamResult("x"), None, StopReason.END_TURN),
        (StreamResult("", (ToolCall("c", "x", {}),)), None, StopReason.TOOL_USE),
        (StreamResult("x", (), TokenUsage(completion_tokens=9)), 9, StopReason.MAX_TOKENS),
        (StreamResult("x", (), TokenUsage(completion_tokens=8)), 9, StopReason.END_TURN),
        (StreamResult("x", (), None, StopReason.STOP_SEQUENCE), 9, StopReason.STOP_SEQUENCE),
    ],
)
def test_11_1_a_missing_stop_reason_is_worked_out(result: StreamResult, limit: int | None, reason: StopReason) -> None:
    assert settled_stop_reason(result, limit) is reason


async def test_11_1_calls_cut_off_or_without_a_name_are_dropped() -> None:
    asked = StreamResult(
        "",
        (
            ToolCall("c1", "add", '{"a": 1}'),
            ToolCall("c2", "add", '{"a": '),
            ToolCall("c3", " ", {}),
            ToolCall("c4", "add"),
        ),
    )
    world = World(Script(asked, "ok"), agent(tools=(add,)))
    _, events = await world.run()
    assert {c: r["data"] for c, r in tool_results((await world.thread()).messages).items()} == {"c1": 1, "c4": 0}
    assert [e.id for e in of_type(events, ToolCallCancelled)] == ["c2", "c3"]


# -- 11.2 ------------------------------------------------------------------------------------------


def test_11_2_the_policy_has_its_defaults() -> None:
    assert LlmRetryPolicy() == LlmRetryPolicy(
        max_attempts_per_model=2,
        initial_backoff_ms=250,
        max_backoff_ms=2000,
        backoff_jitter_percent=20,
        max_retry_window_ms=10000,
        retry_stream_start=True,
        max_stream_event_retries=2,
        stream_error_fallback_threshold=2,
    )
    with pytest.raises(ValueError, match="max_attempts_per_model 0 is refused: use 1 or more"):
        LlmRetryPolicy(max_attempts_per_model=0)


@pytest.mark.parametrize(
    ("attempt", "chance", "expected"),
    [(1, 0.5, 250), (2, 0.5, 500), (3, 0.5, 1000), (4, 0.5, 2000), (9, 0.5, 2000), (1, 0.0, 200), (4, 0.999, 2000)],
)
def test_11_2_backoff_doubles_up_to_a_cap_with_jitter_inside_it(attempt: int, chance: float, expected: int) -> None:
    assert backoff_ms(LlmRetryPolicy(), attempt, chance) == expected


RETRIED = {"rate_limit", "timeout", "connection", "server_unavailable", "server_error"}


@pytest.mark.parametrize("kind", list(ErrorClass))
def test_11_2_the_error_class_decides_about_another_try(kind: ErrorClass) -> None:
    decided = after_failure(LlmRetryPolicy(), 1, refused(kind), elapsed_ms=0, chance=0.5)
    assert decided == (Again(250) if kind.value in RETRIED else NextModel())


def test_11_2_past_the_window_every_model_is_given_up() -> None:
    late = after_failure(LlmRetryPolicy(), 1, refused(ErrorClass.TIMEOUT), elapsed_ms=9_900, chance=0.5)
    assert isinstance(late, GiveUp) and "retry budget exhausted" in late.why
    asked = InferenceError("slow down", "llm_exec_error", ErrorClass.RATE_LIMIT, None, 4000)
    assert after_failure(LlmRetryPolicy(), 1, asked, elapsed_ms=0, chance=0.5) == Again(4000)
    no_start = LlmRetryPolicy(retry_stream_start=False)
    started = refused(ErrorClass.TIMEOUT, "llm_stream_start_error")
    assert after_failure(no_start, 1, started, elapsed_ms=0, chance=0.5) == NextModel()


def test_11_2_models_are_tried_in_order_without_blanks_and_repeats() -> None:
    assert candidates("a", ["b", " ", "a", "c", "b"]) == ("a", "b", "c")


async def test_11_2_each_model_gets_its_attempts_then_the_next_one() -> None:
    world = World(
        Script(refused(ErrorClass.SERVER_ERROR), refused(ErrorClass.SERVER_ERROR), refused(ErrorClass.AUTH), "hi"),
        agent(fallback_models=("m2", "m", "m3")),
    )
    outcome, events = await world.run()
    assert [r.model for r in world.model.requests] == ["m", "m", "m2", "m3"]
    assert isinstance(outcome, Finished) and outcome.response == "hi"
    assert next(e.event.model for e in events if e.event.type == "inference_complete") == "m3"


async def test_11_2_between_two_attempts_the_backoff_is_slept() -> None:
    world = World(Script(refused(ErrorClass.SERVER_ERROR), "hi"), agent())
    await world.run()
    assert world.clock.slept == [0.25]


async def test_11_2_when_all_models_failed_the_run_ends_with_an_error() -> None:
    world = World(Script(refused(ErrorClass.AUTH), RuntimeError("odd")), agent(fallback_models=("m2",)))
    outcome, events = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason.type == "error" and "odd" in str(outcome.reason.value)
    assert of_type(events, ErrorEvent)[0].code == "LLM_ERROR"
    assert types(events)[-3:] == ["step_end", "error", "run_finish"]


async def test_11_2_an_exhausted_retry_budget_is_named() -> None:
    policy = LlmRetryPolicy(max_retry_window_ms=100)
    world = World(Script(refused(ErrorClass.TIMEOUT)), agent(retry=policy, fallback_models=("m2",)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and "retry budget exhausted" in str(outcome.reason.value)
    assert len(world.model.requests) == 1


# -- 11.2, broken streams --------------------------------------------------------------------------


async def test_11_2_a_stream_that_broke_with_nothing_repeats_the_step() -> None:
    world = World(Script(broken(then=cut()), "hi"), agent())
    outcome, events = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "hi"
    assert [m.content for m in (await world.thread()).messages] == ["hello", "hi"]
    assert types(events).count("step_start") == types(events).count("step_end") == 2
    assert of_type(events, StreamReset) == []


async def test_11_2_text_that_arrived_is_kept_and_continued_without_repeating_it() -> None:
    world = World(Script(broken("Once upon ", then=cut()), "a time."), agent())
    outcome, events = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "Once upon a time."
    messages = (await world.thread()).messages
    assert [(m.role.value, m.content) for m in messages if m.role is not Role.USER or m.content == "hello"] == [
        ("user", "hello"),
        ("assistant", "Once upon "),
        ("assistant", "a time."),
    ]
    go_on = messages[2]
    assert go_on.role is Role.USER and go_on.visibility is Visibility.INTERNAL
    assert wording.has_mark(go_on, wording.CONTINUATION)
    assert "".join(e.delta for e in of_type(events, TextDelta)) == "Once upon a time."
    assert of_type(events, StreamReset) == [], "what was shown stands"
    assert of_type(events, RunFinish)[0].result == {"response": "Once upon a time."}


async def test_11_2_part_of_a_tool_call_is_discarded_and_the_step_begins_again() -> None:
    world = World(Script(broken("Let me ", call="c9", then=cut()), "hi"), agent())
    outcome, events = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "hi"
    assert [m.content for m in (await world.thread()).messages] == ["hello", "hi"]
    assert [e.id for e in of_type(events, ToolCallCancelled)] == ["c9"]
    first = next(e.event.message_id for e in events if e.event.type == "step_start")
    assert [e.message_id for e in of_type(events, StreamReset)] == [first]


async def test_11_2_broken_streams_are_taken_up_twice_per_run_then_the_run_fails() -> None:
    policy = LlmRetryPolicy(max_attempts_per_model=1, stream_error_fallback_threshold=9)
    world = World(Script(*[broken(then=cut())] * 3), agent(retry=policy))
    outcome, _ = await world.run()
    assert len(world.model.requests) == 3
    assert isinstance(outcome, Finished) and outcome.reason.type == "error"


async def test_11_2_after_the_threshold_the_next_model_takes_over() -> None:
    world = World(Script(broken(then=cut()), broken(then=cut()), "hi"), agent(fallback_models=("m2",)))
    await world.run()
    assert [r.model for r in world.model.requests] == ["m", "m", "m2"]


async def test_11_2_an_empty_stream_counts_as_broken() -> None:
    world = World(Script(StreamResult(), "hi"), agent())
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "hi"


async def test_11_2_a_broken_stream_of_another_class_is_not_taken_up() -> None:
    world = World(Script(broken("par", then=cut(ErrorClass.UNKNOWN)), "hi"), agent(fallback_models=("m2",)))
    outcome, events = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "hi"
    assert [r.model for r in world.model.requests] == ["m", "m2"] and len(of_type(events, StreamReset)) == 1


# -- 11.2, truncation ------------------------------------------------------------------------------


async def test_11_2_a_truncated_answer_is_continued_three_times_at_most() -> None:
    pieces = [said(text, stop=StopReason.MAX_TOKENS) for text in "abcd"]
    world = World(Script(*pieces), agent())
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "abcd"
    assert len(world.model.requests) == 4
    assert world.model.requests[1].messages[-1].content == wording.CONTINUE_TRUNCATED


async def test_11_2_a_truncated_answer_with_a_complete_call_is_not_continued() -> None:
    asked = StreamResult("", (ToolCall("c1", "add", {"a": 1}),), None, StopReason.MAX_TOKENS)
    world = World(Script(asked, "ok"), agent(tools=(add,)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "ok"
    assert not any(wording.has_mark(m, wording.CONTINUATION) for m in (await world.thread()).messages)


# -- 11.3 ------------------------------------------------------------------------------------------


async def hang(request: Any, on_event: Any) -> Any:
    on_event(TextPiece("par"))
    await asyncio.Event().wait()


async def test_11_3_cancel_ends_a_run_while_it_waits_for_the_model_and_leaves_one_note() -> None:
    world = World(Script(hang, "fine"), agent())
    stream = await world.start()
    async for envelope in stream.events:
        if envelope.event.type == "text_delta":
            stream.cancel()
            stream.cancel()
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.reason == CANCELLED
    messages = (await world.thread()).messages
    assert [m.content for m in messages] == ["hello", "[The previous run was interrupted during inference.]"]
    assert messages[-1].role is Role.USER and messages[-1].visibility is Visibility.INTERNAL
    await world.run("again")
    assert "interrupted during inference" in world.model.requests[1].messages[2].content


async def test_11_3_cancel_while_parallel_tools_run_leaves_one_note_and_abandons_them() -> None:
    begun: list[int] = []

    @tool
    async def hangs() -> None:
        """Hang."""
        begun.append(1)
        if len(begun) == 2:
            stream.cancel()
        await asyncio.Event().wait()

    world = World(Script(calls(("c1", "hangs", {}), ("c2", "hangs", {}))), agent(tools=(hangs,)))
    stream = await world.start()
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.reason == CANCELLED
    notes = [m.content for m in (await world.thread()).messages if wording.has_mark(m, wording.INTERRUPTED)]
    assert notes == ["[The previous run was interrupted while it was using tools.]"]


async def test_11_3_cancel_is_seen_during_backoff() -> None:
    async def sleep(seconds: float) -> None:
        stream.cancel()
        await asyncio.Event().wait()

    world = World(Script(refused(ErrorClass.TIMEOUT)), agent(), sleep=sleep)
    stream = await world.start()
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.reason == CANCELLED


async def test_11_3_a_cancelled_run_is_done_and_its_suspended_calls_stay_recorded() -> None:
    @tool
    def ask() -> ToolResult:
        """Ask."""
        return ToolResult.suspended("ask", "?")

    world = World(Script(calls(("c1", "ask", {}), ("c2", "add", {})), hang), agent(tools=(ask, add)))
    stream = await world.start()
    async for envelope in stream.events:
        if envelope.event.type == "text_delta":
            stream.cancel()
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.reason == CANCELLED
    state = await world.state()
    assert state["__run"]["status"] == "done" and state["__run"]["done_reason"] == "cancelled"
    assert "suspended_call" in state["__tool_call_scope"]["c1"]


async def test_11_3_new_input_on_a_busy_thread_cancels_waits_and_then_starts() -> None:
    world = World(Script(hang, "second"), agent())
    first = await world.start("one")
    async for envelope in first.events:
        if envelope.event.type == "text_delta":
            break
    second, _ = await world.run("two")
    assert isinstance(second, Finished) and second.response == "second"
    ended = await first.result()
    assert isinstance(ended, Finished) and ended.reason == CANCELLED
    assert [m.content for m in (await world.thread()).messages] == [
        "one",
        "[The previous run was interrupted during inference.]",
        "two",
        "second",
    ]


async def test_a_tool_that_ignores_cancellation_does_not_hold_the_run() -> None:
    release = asyncio.Event()

    @tool
    async def stubborn() -> None:
        """Stay."""
        stream.cancel()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    world = World(Script(calls(("c1", "stubborn", {}))), agent(tools=(stubborn,)))
    stream = await world.start()
    async with asyncio.timeout(5):
        outcome = await stream.result()
    release.set()
    assert isinstance(outcome, Finished) and outcome.reason == CANCELLED


async def test_steering_reaches_the_next_inference_and_keeps_the_run_going() -> None:
    def first(request: Any, on_event: Any) -> Any:
        stream.steer("and in French")
        return said("done")

    world = World(Script(first, "fini"), agent())
    stream = await world.start("translate")
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.response == "fini"
    assert [m.content for m in (await world.thread()).messages] == ["translate", "done", "and in French", "fini"]
