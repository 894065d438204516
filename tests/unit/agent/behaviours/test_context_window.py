"""What is left out of a request, and what never is."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.agent.actions import AddRequestTransform, Phase, RequestView
from techrevati.agent.behaviours.context_window import PINNED, BadWindow, ContextWindow, WindowPolicy, fit, room
from techrevati.agent.behaviours.rounds import is_whole, rounds
from techrevati.agent.behaviours.tokens import message_tokens, text_tokens, tool_tokens
from techrevati.agent.threads.message import Message, Role, ToolCall, Visibility
from techrevati.agent.tools import ToolDescriptor
from tests.unit.agent.behaviours.contexts import actions, ctx

TIGHT = WindowPolicy(max_context_tokens=120, max_output_tokens=20, min_recent_messages=2)


def words(count: int) -> str:
    return "abc " * count  # one token each


def asking(*ids: str, text: str = "") -> Message:
    return Message.assistant(text, tuple(ToolCall(each, "t", {}) for each in ids))


def cost(messages: tuple[Message, ...]) -> int:
    return sum(message_tokens(message) for message in messages if message.role is not Role.SYSTEM)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("漢字漢", 2), ("漢", 1), ("ab漢", 2), ("한국어", 2), ("абвг", 1)],
)
def test_12_1_four_latin_or_one_and_a_half_cjk_characters_are_a_token(text: str, tokens: int) -> None:
    assert text_tokens(text) == tokens


def test_12_1_messages_calls_and_descriptors_cost_extra() -> None:
    assert message_tokens(Message.user("abcd")) == 1 + 4
    assert message_tokens(Message.assistant("", (ToolCall("1", "abcd", {"a": 1}),))) == 4 + 20 + 1 + 2
    assert tool_tokens([ToolDescriptor("abcd", parameters={})]) == 20 + 1 + 1


def test_12_1_the_budget_is_context_less_output_tools_and_system() -> None:
    tools = [ToolDescriptor("abcd", parameters={})]
    assert room(TIGHT, [Message.system(words(10)), Message.user("x")], tools) == 120 - 20 - 22 - 14


def test_12_1_what_fits_is_untouched() -> None:
    messages = (Message.system("s"), Message.user("a"), Message.assistant("b"))
    assert fit(TIGHT, messages) == messages


def test_12_1_the_oldest_history_goes_first() -> None:
    messages = [Message.user(words(20)) for _ in range(8)]
    assert fit(TIGHT, messages) == tuple(messages[-4:])


def test_12_1_system_messages_are_never_dropped() -> None:
    messages = [Message.system(words(50)), Message.user(words(50)), Message.system(words(50)), Message.user(words(50))]
    assert [m.role for m in fit(TIGHT, [*messages, Message.user("x"), Message.user("y")])] == [
        Role.SYSTEM,
        Role.SYSTEM,
        Role.USER,
        Role.USER,
    ]


def test_12_1_the_last_messages_are_kept_even_over_budget() -> None:
    messages = [Message.user(words(500)), Message.user(words(500)), Message.assistant(words(500))]
    assert fit(TIGHT, messages) == tuple(messages[1:])


def test_12_1_a_call_and_its_results_are_dropped_together() -> None:
    old = [asking("a", "b"), Message.tool(words(1), "a"), Message.tool(words(1), "b")]
    rest = [Message.user(words(20)) for _ in range(3)]
    assert fit(TIGHT, [*old, *rest]) == tuple(rest), "the results alone would have fitted"


def test_12_1_a_call_and_its_results_are_kept_together() -> None:
    messages = [Message.user(words(90)), asking("a", text=words(90)), Message.tool("r", "a"), Message.user("go on")]
    assert fit(TIGHT, messages) == tuple(messages[1:]), "the result is recent, so its call stays, though too large"


def test_12_1_what_the_user_said_last_stays_through_a_long_tool_round() -> None:
    task = Message.user("the task")
    steps = [m for n in range(9) for m in (asking(str(n), text=words(20)), Message.tool("ok", str(n)))]
    inner = Message.user("go on", visibility=Visibility.INTERNAL)
    kept = fit(TIGHT, [Message.user("an older task"), task, *steps, inner])
    assert kept[0] == task
    assert len(kept) < 10


def test_12_1_pinned_messages_stay() -> None:
    pinned = Message.user("what came before", metadata={PINNED: True})
    assert fit(TIGHT, [Message.user("x"), pinned, *(Message.user(words(40)) for _ in range(5))])[0] == pinned


def test_12_1_no_holes_older_messages_that_would_fit_go_with_the_one_that_does_not() -> None:
    messages = [Message.user("tiny"), Message.assistant(words(200)), Message.user(words(5)), Message.assistant("x")]
    assert fit(TIGHT, messages) == tuple(messages[2:])


def test_12_1_a_call_id_used_twice_belongs_to_the_call_before_it() -> None:
    messages = [asking("a"), Message.tool("1", "a"), asking("a"), Message.tool("2", "a"), Message.tool("3", "none")]
    assert rounds(messages) == [(0, 1), (2, 3), (4,)]
    assert [cut for cut in range(6) if is_whole(messages, cut)] == [0, 2, 4, 5]


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    messages: list[Message] = []
    for number in range(draw(st.integers(0, 8))):
        text = words(draw(st.integers(0, 40)))
        kind = draw(st.sampled_from(["user", "assistant", "system", "calls"]))
        if kind == "calls":
            ids = [f"{number}.{n}" for n in range(draw(st.integers(1, 3)))]
            messages.append(asking(*ids, text=text))
            messages += [Message.tool(words(draw(st.integers(0, 30))), each) for each in ids]
        else:
            messages.append(getattr(Message, kind)(text))
    return messages


@settings(max_examples=200, deadline=None)
@given(conversations(), st.integers(60, 400), st.integers(1, 4))
def test_12_1_whatever_is_left_out_the_rules_hold(messages: list[Message], window: int, recent: int) -> None:
    policy = WindowPolicy(window, 20, recent)
    kept = fit(policy, messages)
    order = [messages.index(message) for message in kept]
    assert order == sorted(order), "the order is kept"
    asked = {call.id for message in kept for call in message.tool_calls}
    answered = {message.tool_call_id for message in kept if message.role is Role.TOOL}
    assert asked == answered, "no call without its results, no result without its call"
    history = [message for message in messages if message.role is not Role.SYSTEM]
    assert {m.id for m in history[-recent:]} <= {m.id for m in kept}
    assert [m for m in kept if m.role is Role.SYSTEM] == [m for m in messages if m.role is Role.SYSTEM]
    if cost(kept) > room(policy, messages, ()):
        must = {m.id for m in history[-recent:]} | {m.id for m in history if m.role is Role.USER}
        dropped_only = [group for group in rounds(kept) if not any(kept[i].id in must for i in group)]
        assert not dropped_only, "over budget only by what must stay"
    assert fit(policy, kept) == kept, "a second time changes nothing"


async def test_12_1_the_behaviour_shortens_by_a_request_transform_and_flags_the_prompt_cache() -> None:
    window = ContextWindow(TIGHT)
    (action,) = actions(await window.before_inference(ctx(Phase.BEFORE_INFERENCE)), Phase.BEFORE_INFERENCE)
    assert isinstance(action, AddRequestTransform)
    messages = tuple(Message.user(words(20)) for _ in range(8))
    tools = (ToolDescriptor("abcd", description=words(30), parameters={}),)
    after = action.transform(RequestView(messages, tools))
    assert after == RequestView(messages[-2:], tools, True)
    plain = ContextWindow(without_cache(TIGHT))
    assert not plain.shorten(RequestView(messages, ())).prompt_cache
    assert plain.shorten(RequestView(messages, (), True)).prompt_cache, "flags are or-ed"


def without_cache(policy: WindowPolicy) -> WindowPolicy:
    return WindowPolicy(policy.max_context_tokens, policy.max_output_tokens, policy.min_recent_messages, False)


@pytest.mark.parametrize(
    ("model", "window"),
    [
        ("anthropic:claude-x", WindowPolicy(200_000, 16_384, 10, True)),
        ("openai:gpt-4o-mini", WindowPolicy(128_000, 16_384, 10, False)),
        ("gpt-4-turbo", WindowPolicy(128_000, 4_096, 10, False)),
        ("proxy/gpt-4o", WindowPolicy(128_000, 16_384, 10, False)),
    ],
)
def test_12_1_model_presets(model: str, window: WindowPolicy) -> None:
    assert WindowPolicy.for_model(model) == window


@pytest.mark.parametrize("numbers", [(10, 10, 1), (10, -1, 1), (10, 5, 0)])
def test_12_1_a_window_that_holds_nothing_is_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(BadWindow, match="fix:"):
        WindowPolicy(*numbers)


def test_12_1_messages_are_not_changed() -> None:
    messages = tuple(Message.user(words(20)) for _ in range(8))
    before = msgspec.json.encode(messages)
    fit(TIGHT, messages)
    assert msgspec.json.encode(messages) == before
