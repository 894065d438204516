"""Conversation memory."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from techrevati.runtime.memory import ConversationMemory, Message, TokenBudget, Window, estimate_tokens


def said(memory: ConversationMemory) -> list[str]:
    return [message.content for message in memory.messages]


def one_each(_: Message) -> int:
    return 1


def summed(dropped: Sequence[Message]) -> Message:
    return Message("system", "+".join(message.content for message in dropped))


def test_without_a_policy_nothing_is_forgotten() -> None:
    memory = ConversationMemory()
    for n in range(100):
        memory.add("user", str(n))
    assert len(memory.messages) == 100
    memory.messages.clear()
    assert len(memory.messages) == 100


def test_a_window_keeps_the_newest_and_the_pinned() -> None:
    memory = ConversationMemory(Window(2))
    memory.add("system", "rules", pinned=True)
    for n in range(5):
        memory.add("user", str(n))
    assert said(memory) == ["rules", "3", "4"]
    with pytest.raises(ValueError, match="window size must be >= 1, got 0"):
        Window(0)


def test_a_cut_takes_orphaned_tool_answers_with_it() -> None:
    history = [
        Message("assistant", "call"),
        Message("tool", "answer"),
        Message("tool", "more"),
        Message("user", "q"),
    ]
    assert said(ConversationMemory(Window(2), history)) == ["q"]
    assert said(ConversationMemory(Window(4), history)) == ["call", "answer", "more", "q"]
    assert said(ConversationMemory(Window(1), history[:2])) == ["answer"]


def test_a_token_budget_drops_the_oldest() -> None:
    memory = ConversationMemory(TokenBudget(3, one_each))
    for n in range(5):
        memory.add("user", str(n))
    assert said(memory) == ["2", "3", "4"]
    assert memory.add("user", "5").content == "5"


def test_the_last_message_always_stays() -> None:
    memory = ConversationMemory(TokenBudget(10))
    memory.add("user", "short")
    memory.add("user", "x" * 1000)
    assert said(memory) == ["x" * 1000]


def test_what_falls_out_is_summed_up_and_summed_up_again() -> None:
    memory = ConversationMemory(TokenBudget(3, one_each, summed, summary_tokens=1))
    memory.add("system", "rules", pinned=True)
    for n in range(3):
        memory.add("user", str(n))
    assert said(memory) == ["rules", "0+1", "2"]
    memory.add("user", "3")
    assert said(memory) == ["rules", "0+1+2", "3"]


def test_a_summary_that_does_not_fit_is_left_out() -> None:
    policy = TokenBudget(8, lambda message: len(message.content), summed, summary_tokens=2)
    memory = ConversationMemory(policy)
    for word in ("aaaa", "bbbb", "cccc"):
        memory.add("user", word)
    assert said(memory) == ["cccc"]


def test_pinned_messages_that_do_not_fit_are_an_error() -> None:
    memory = ConversationMemory(TokenBudget(1, one_each))
    memory.add("system", "a", pinned=True)
    with pytest.raises(ValueError, match="pinned messages need 2 tokens, the budget is 1"):
        memory.add("system", "b", pinned=True)


def test_memory_travels_as_json() -> None:
    memory = ConversationMemory(Window(2))
    memory.add("system", "rules", pinned=True)
    memory.add("user", "hi")
    state = json.loads(json.dumps(memory.to_state()))
    assert state == [
        {"role": "system", "content": "rules", "pinned": True},
        {"role": "user", "content": "hi"},
    ]
    again = ConversationMemory.from_state(state, Window(1))
    again.add("user", "there")
    assert said(again) == ["rules", "there"]
    assert estimate_tokens(Message("user", "x" * 40)) == 14
