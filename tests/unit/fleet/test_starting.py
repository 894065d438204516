"""What a client says, checked and built as values."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from techrevati.fleet.cards import Card
from techrevati.fleet.settings import Settings
from techrevati.fleet.starting import Start, decide_call, run_keys, start_call, steer_call
from techrevati.store.errors import BadName, NotJson
from techrevati.store.keys import new_id, partition_of, partition_of_id

CARDS = {"write": Card("write", "writer", max_attempts=5)}


def built(**options: Any) -> Any:
    start = {"agent": "write", "input": {"topic": "tides"}, **options}
    return start_call("news", 8, Settings(), CARDS, cast(Start, start))


def arguments(call: Any) -> dict[str, Any]:
    names = (
        *("run_id", "tenant", "thread", "role", "agent", "on_busy", "messages", "idem", "digest", "begin", "deadline"),
        *("priority", "max_attempts", "parent", "line_max", "parent_token"),
    )
    rest = call.args[len(names) :]
    return dict(zip(names, call.args, strict=False)) | dict(zip(rest[::2], rest[1::2], strict=True))


def test_role_and_attempts_come_from_the_card() -> None:
    said = arguments(built())
    assert (said["role"], said["agent"], said["max_attempts"], said["on_busy"]) == ("writer", "write", 5, "enqueue")
    assert said["input"] == '{"topic":"tides"}'


def test_a_thread_decides_the_partition_and_the_ids_carry_it() -> None:
    call = built(thread_id="essay", tenant="acme")
    assert call.keys.partition == partition_of("acme", "essay", 8) == partition_of_id(arguments(call)["run_id"])


def test_racing_starts_with_one_key_meet_in_one_partition() -> None:
    calls = [built(idempotency_key="req-7") for _ in range(5)]
    assert len({call.keys.partition for call in calls}) == 1
    said = [arguments(call) for call in calls]
    assert len({one["idem"] for one in said}) == 1 and len({one["digest"] for one in said}) == 1
    assert len({one["run_id"] for one in said}) == 5


def test_scope_of_a_key_is_the_tenant_or_the_thread() -> None:
    keys = [
        arguments(built(idempotency_key="k", **more))["idem"]
        for more in ({}, {"tenant": "acme"}, {"thread_id": "t"}, {"thread_id": "u"})
    ]
    assert len(set(keys)) == 4


def test_another_payload_is_another_digest() -> None:
    assert arguments(built())["digest"] != arguments(built(priority=1))["digest"]
    assert arguments(built())["digest"] == arguments(built(delay=5))["digest"]


def test_times_are_relative_or_absolute_never_both() -> None:
    assert arguments(built(delay=1.5))["begin"] == "+1500000"
    assert arguments(built(delay=timedelta(seconds=2)))["begin"] == "+2000000"
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    assert arguments(built(eta=moment, deadline=moment))["begin"] == f"={round(moment.timestamp() * 1e6)}"
    assert arguments(built(deadline=60))["deadline"] == "+60000000"
    with pytest.raises(ValueError, match="delay and eta were both given; fix: give one"):
        built(delay=1, eta=moment)


def test_a_run_id_of_elsewhere_is_refused() -> None:
    assert run_keys("news", 8, new_id(3)).partition == 3
    for text in ("", "x", new_id(9)):
        with pytest.raises(BadName, match="run_id"):
            run_keys("news", 8, text)


def test_decisions_and_steering_are_checked() -> None:
    run_id = new_id(1)
    with pytest.raises(ValueError, match="action='go' of call 'c' is refused: use 'resume' or 'cancel'"):
        decide_call("news", 8, Settings(), run_id, "c", "go", None, None)
    with pytest.raises(NotJson, match="decision"):
        decide_call("news", 8, Settings(), run_id, "c", "resume", {1}, None)
    assert decide_call("news", 8, Settings(), run_id, "c", "resume", 1, "d1").args[1] == "d1"
    assert steer_call("news", 8, Settings(), run_id, "left").args[4] == '{"role":"user","content":"left"}'
