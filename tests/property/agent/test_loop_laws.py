"""Laws of the loop's pure parts: the gate, the model's view of history, waits between attempts, answers."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from techrevati.agent import wording
from techrevati.agent.actions import Block, SetToolResult, Suspend
from techrevati.agent.answers import action_of, read_answers
from techrevati.agent.gate import Answered, Blocked, Open, Parking, standing
from techrevati.agent.history import model_view
from techrevati.agent.model import ErrorClass, InferenceError
from techrevati.agent.retries import Again, GiveUp, LlmRetryPolicy, NextModel, after_failure, backoff_ms
from techrevati.agent.suspension import PendingToolCall, ResumeAction, SuspendedCall, Suspension, default_ticket
from techrevati.agent.threads.message import Message, Role, ToolCall
from techrevati.agent.tools import ToolResult

RANK: dict[type, int] = {Open: 0, Parking: 1, Answered: 2, Blocked: 3}

gate_actions = st.lists(
    st.sampled_from(
        [
            Block("one"),
            Block("two"),
            Suspend(default_ticket("c", "x", {})),
            SetToolResult(ToolResult.success("x", 1)),
            SetToolResult(ToolResult.error("x", "no")),
        ]
    )
)


@given(gate_actions)
def test_the_gate_stands_as_high_as_its_highest_action_in_any_order(actions: list[Any]) -> None:
    rank = RANK[type(standing(actions))]
    assert rank == RANK[type(standing(list(reversed(actions))))]
    assert rank == max((RANK[type(standing([action]))] for action in actions), default=0)


@given(gate_actions, gate_actions)
def test_more_actions_never_lower_the_gate(before: list[Any], after: list[Any]) -> None:
    assert RANK[type(standing(before + after))] >= RANK[type(standing(before))]


IDS = st.sampled_from(["c1", "c2", "c3"])


def _asking(ids: list[str]) -> Message:
    return Message.assistant("", tuple(ToolCall(i, "x", {}) for i in ids))


def _waiting(call_id: str) -> Message:
    asked = Suspension(call_id, "confirm")
    return wording.placeholder(f"p{call_id}", SuspendedCall(call_id, "x", {}, asked, PendingToolCall(call_id, "x")))


threads = st.lists(
    st.one_of(
        st.builds(Message.user, st.just("hi")),
        st.builds(_asking, st.lists(IDS, unique=True, min_size=1, max_size=3)),
        st.builds(lambda i: Message.tool("result", i), IDS),
        st.builds(_waiting, IDS),
    ),
    max_size=12,
)


@given(threads)
def test_in_the_models_view_every_call_is_followed_by_exactly_its_results(messages: list[Message]) -> None:
    view = list(model_view(messages))
    while view:
        message = view.pop(0)
        assert message.role is not Role.TOOL, "a result that nobody asked for"
        for call in message.tool_calls:
            answer = view.pop(0)
            assert answer.role is Role.TOOL and answer.tool_call_id == call.id


@given(threads)
def test_the_models_view_of_a_view_is_that_view(messages: list[Message]) -> None:
    view = model_view(messages)
    assert model_view(view) == view


@given(threads)
def test_the_models_view_keeps_what_was_said(messages: list[Message]) -> None:
    def said(given: Any) -> list[Message]:
        return [m for m in given if m.role is not Role.TOOL]

    assert said(model_view(messages)) == said(messages)


@given(threads, IDS)
def test_a_real_result_is_never_hidden_by_a_placeholder(messages: list[Message], call_id: str) -> None:
    real = Message.tool("real", call_id)
    view = model_view([_asking([call_id]), _waiting(call_id), real, *messages])
    assert view[1] is real


policies = st.builds(
    LlmRetryPolicy,
    max_attempts_per_model=st.integers(1, 5),
    initial_backoff_ms=st.integers(0, 5000),
    max_backoff_ms=st.integers(0, 10_000),
    backoff_jitter_percent=st.integers(0, 100),
    max_retry_window_ms=st.none() | st.integers(0, 20_000),
)
chances = st.floats(0, 1, exclude_max=True)


@given(policies, st.integers(1, 200), chances)
def test_a_backoff_is_never_negative_and_never_past_its_cap(
    policy: LlmRetryPolicy, attempt: int, chance: float
) -> None:
    assert 0 <= backoff_ms(policy, attempt, chance) <= policy.max_backoff_ms


@given(policies, st.integers(1, 9), st.sampled_from(list(ErrorClass)), st.integers(0, 30_000), chances)
def test_no_wait_goes_past_the_window_and_no_model_gets_more_than_its_attempts(
    policy: LlmRetryPolicy, attempt: int, kind: ErrorClass, elapsed: int, chance: float
) -> None:
    error = InferenceError("no", "llm_exec_error", kind)
    decided = after_failure(policy, attempt, error, elapsed_ms=elapsed, chance=chance)
    if isinstance(decided, Again):
        assert kind.is_retryable and attempt < policy.max_attempts_per_model
        assert policy.max_retry_window_ms is None or elapsed + decided.wait_ms <= policy.max_retry_window_ms
    elif isinstance(decided, GiveUp):
        assert policy.max_retry_window_ms is not None
    else:
        assert decided == NextModel() and (not kind.is_retryable or attempt >= policy.max_attempts_per_model)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(anything)
def test_every_answer_means_something_and_what_is_no_answer_is_a_denial(answer: Any) -> None:
    action = action_of(answer)
    assert action in set(ResumeAction)
    if not isinstance(answer, bool | str | dict):
        assert action is ResumeAction.CANCEL


@given(st.lists(st.tuples(IDS, anything), max_size=8))
def test_of_the_answers_to_one_call_the_last_counts(answers: list[tuple[str, Any]]) -> None:
    read = read_answers(answers)
    assert {d.target_id: d.result for d in read} == dict(answers)
    assert len({d.target_id for d in read}) == len(read)
