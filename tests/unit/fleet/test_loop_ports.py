"""Messages between the agent loop, a thread and a model client; and what a turn gives the loop."""

import pytest

from techrevati.agent.model import ErrorClass, InferenceError, ModelRequest, StopReason
from techrevati.agent.threads.message import Message, Role, ToolCall
from techrevati.fleet.loop_ports import FleetModel, Through, TurnJournal, UnreadableMessage, chat_message, loop_message
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.models import ModelReply, RetryLater
from techrevati.fleet.outcome import Parked
from techrevati.store.errors import LeaseLost
from tests.unit.fleet.turns import Echo, make_turn

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}


def test_a_tool_call_has_the_shape_that_clients_take() -> None:
    said = chat_message(Message.assistant("", (ToolCall("c1", "add", {"a": 1}),)))
    assert said == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert chat_message(Message.tool("3", "c1")) == {"role": "tool", "content": "3", "tool_call_id": "c1"}


def test_chat_messages_of_other_agents_are_read() -> None:
    read = loop_message({"role": "assistant", "content": None, "tool_calls": [CALL]}, 4)
    assert (read.id, read.role, read.content, read.tool_calls[0].arguments) == ("m4", Role.ASSISTANT, "", {"a": 1})
    assert loop_message({"role": "developer", "content": [{"type": "text"}]}, 0).role is Role.USER
    with pytest.raises(UnreadableMessage, match=r"message 2 of the thread cannot be read: .*; fix: role, content"):
        loop_message({"role": "tool", "content": "x", "tool_call_id": 7}, 2)


async def test_what_the_store_cannot_do_passes_through_the_loop() -> None:
    turn, said = make_turn()

    async def lost(journal: list[tuple[str, str]]) -> str:
        raise LeaseLost("r1", "1.a", "2.b")

    said.step_end = lost  # type: ignore[method-assign]
    with pytest.raises(Through) as through:
        await TurnJournal(turn).once("k", _nothing)
    assert isinstance(through.value.error, LeaseLost)
    assert not isinstance(through.value, Exception), "no part of the loop may take it for its own"


async def _nothing() -> dict[str, object]:
    return {}


class Moody(Echo):
    """Fails first, as it is told to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error

    async def complete(self, request: ModelRequest) -> ModelReply:  # type: ignore[override]
        if (error := self.error) is not None:
            self.error = None
            raise error
        return ModelReply("well", 3, 2, 5, "echo", stop_reason="stop")


REQUEST = ModelRequest("echo", (Message.user("hi"),))


async def test_failed_attempts_are_kept_and_nothing_is_paid_twice() -> None:
    model = Moody(ModelFailed("echo", "rate_limit", "slow down", 429))
    turn, said = make_turn(model=model)
    asked = FleetModel(turn, 5.0)
    with pytest.raises(InferenceError) as failed:
        await asked.infer(REQUEST, lambda piece: None)
    assert failed.value.error_class is ErrorClass.RATE_LIMIT and failed.value.is_retryable
    answer = await asked.infer(REQUEST, lambda piece: None)
    assert (answer.text, answer.stop_reason) == ("well", StopReason.END_TURN)
    assert turn.usage.cost_micros == 5

    kept = {f"e:{key}": text for journal in said.ended for key, text in journal}
    model.error = AssertionError("asked again")
    again, _ = make_turn(model=model, journal=kept)
    replayed = FleetModel(again, 5.0)
    with pytest.raises(InferenceError, match="slow down"):
        await replayed.infer(REQUEST, lambda piece: None)
    assert (await replayed.infer(REQUEST, lambda piece: None)).text == "well"
    assert again.usage.cost_micros == 5, "the attempt that commits accounts for it"


async def test_a_provider_that_asks_for_time_parks_the_turn() -> None:
    turn, _ = make_turn(model=Moody(RetryLater("echo", 30.0)))
    with pytest.raises(Parked):
        await FleetModel(turn, 5.0).infer(REQUEST, lambda piece: None)
