"""A turn as its author sees it."""

import pytest

from techrevati.fleet.models import UnknownModel
from techrevati.fleet.outcome import Decision, Parked, Sleep, Suspend
from techrevati.store.errors import NotJson
from techrevati.store.records import InboxEntry
from tests.unit.fleet.turns import Echo, make_turn


async def test_a_model_is_paid_once_and_its_answer_is_replayed() -> None:
    model = Echo()
    turn, said = make_turn(model=model)
    reply = await turn.model("echo", "hello")
    assert (reply.text, turn.usage.input_tokens, turn.usage.cost_micros) == ("echo", 3, 5)
    assert [kind for kind, _ in turn.events] == ["model.called"] and said.deltas[0][0] == "text.delta"
    journal = {f"e:{key}": text for key, text in turn.unwritten()}
    again, _ = make_turn(model=model, journal=journal)
    assert (await again.model("echo", "hello")).text == "echo"
    assert len(model.calls) == 1
    assert again.usage.cost_micros == 5, "what the run has spent counts once, with the commit that stands"
    await again.model("echo", "something else")
    assert len(model.calls) == 2


async def test_an_answer_to_the_conversation_joins_it() -> None:
    turn, _ = make_turn(stored=('{"role":"user","content":"hi"}',))
    await turn.model("echo", turn.messages)
    assert [message["content"] for message in turn.messages] == ["hi", "echo"]
    assert turn.messages.added == [{"role": "assistant", "content": "echo"}]


async def test_an_unknown_model_is_named() -> None:
    turn, _ = make_turn()
    with pytest.raises(UnknownModel, match=r"model 'nobody' is unknown; known: .*echo"):
        await turn.model("nobody", "x")


async def test_a_step_runs_once_and_carries_what_was_paid_before_it() -> None:
    turn, said = make_turn()
    await turn.model("echo", "hello")
    ran: list[int] = []

    def mail() -> dict[str, bool]:
        ran.append(1)
        return {"sent": True}

    for _ in range(2):
        assert await turn.step("mail", mail) == {"sent": True}
    assert ran == [1] and said.begun == []
    assert [key.partition(":")[0] for key, _ in said.ended[0]] == ["model", "step"]
    assert turn.unwritten() == []


async def test_a_once_step_is_noted_before_it_begins() -> None:
    async def pay() -> int:
        assert said.begun == [("step:pay", "once")]
        return 7

    turn, said = make_turn()
    assert await turn.step("pay", pay, policy="once") == 7


async def test_the_journal_of_an_earlier_attempt_is_believed() -> None:
    turn, said = make_turn(journal={"e:step:pay": "7"})
    assert await turn.step("pay", lambda: 8, policy="once") == 7
    assert not said.begun and not said.ended


async def test_a_step_must_give_json_and_name_a_known_policy() -> None:
    turn, _ = make_turn()
    with pytest.raises(NotJson, match="result of step 'x'"):
        await turn.step("x", lambda: {1})
    with pytest.raises(ValueError, match="policy 'twice' of step 'x' is refused"):
        await turn.step("x", lambda: 1, policy="twice")  # type: ignore[call-overload]


async def test_a_short_pause_waits_and_a_long_one_parks_until_its_time() -> None:
    turn, _ = make_turn()
    await turn.pause(0.01)
    with pytest.raises(Parked) as parked:
        await turn.pause(60)
    assert (parked.value.seconds, parked.value.why) == (60, "timer")
    journal = {f"e:{key}": text for key, text in turn.unwritten()}
    later, _ = make_turn(journal=journal, now=1059.995)
    await later.pause(0.01)
    await later.pause(60)  # 5 ms are left of it


def test_events_of_the_runtime_cannot_be_forged() -> None:
    turn, _ = make_turn()
    for kind in ("", "run.completed", "turn.started", "handoff.requested", "call.decided"):
        with pytest.raises(ValueError, match="is refused"):
            turn.emit(kind)
    turn.emit("mine", {"a": 1})
    assert turn.events == [("mine", '{"a":1}')]


def test_what_came_in_is_read() -> None:
    inbox = (
        InboxEntry("d1", 1, "decision", {"call_id": "ok", "action": "resume", "payload": 1}),
        InboxEntry("s1", 2, "steer", {"role": "user", "content": "left"}),
    )
    handed = '{"source":"plan","reason":"go","context":{"a":1},"trail":["plan"]}'
    turn, _ = make_turn(
        inbox=inbox,
        input='{"topic":"tides"}',
        meta='{"m":1}',
        handed=handed,
        deadline="5000000",
        attempt="1",
        fails="2",
    )
    assert turn.input == {"topic": "tides"} and turn.metadata == {"m": 1}
    assert (turn.attempt, turn.failures, turn.deadline) == (2, 2, 5.0)
    assert turn.decisions == {"ok": Decision("d1", "ok", "resume", 1)}
    assert turn.steering == [{"role": "user", "content": "left"}]
    assert turn.handed is not None and (turn.handed.role, turn.handed.context, turn.trail) == (
        "plan",
        {"a": 1},
        ("plan",),
    )


def test_outcomes_are_checked_where_they_are_made() -> None:
    turn, _ = make_turn()
    assert turn.sleep(2) == Sleep(2.0)
    with pytest.raises(ValueError, match="seconds=-1 is refused"):
        turn.sleep(-1)
    suspended = turn.suspend("ok", {"q": 1}, expires=3)
    assert isinstance(suspended, Suspend) and suspended.asks[0].expires == 3.0
