"""Events: builders, constructors, and their three forms."""

from __future__ import annotations

import pytest

from techrevati.runtime import AgentEvent, AgentEventName, AgentEventStatus, AgentFailureClass


def test_builders_return_new_events() -> None:
    event = AgentEvent.started("writer", "draft")
    richer = event.with_detail("d").with_data({"k": 1}).with_project(7).with_failure_class(AgentFailureClass.TOOL_ERROR)
    assert (event.detail, event.data, event.project_id) == (None, None, None)
    assert (richer.detail, richer.data, richer.project_id) == ("d", {"k": 1}, 7)
    assert richer.failure_class is AgentFailureClass.TOOL_ERROR


@pytest.mark.parametrize(
    ("event", "name", "status", "role"),
    [
        (AgentEvent.started("r", "p"), "agent.started", "running", "r"),
        (AgentEvent.completed("r", "p", "d"), "agent.completed", "completed", "r"),
        (AgentEvent.failed("r", "p", AgentFailureClass.UNKNOWN), "agent.failed", "failed", "r"),
        (AgentEvent.phase_started("p"), "phase.started", "running", None),
        (AgentEvent.gate_passed("p"), "phase.gate_passed", "green", None),
        (AgentEvent.gate_failed("p"), "phase.gate_failed", "red", None),
        (AgentEvent.recovery_attempted("r", "p"), "agent.recovery.attempted", "running", "r"),
    ],
)
def test_constructors_set_name_and_status(event: AgentEvent, name: str, status: str, role: str | None) -> None:
    assert (event.event, event.status, event.role, event.phase) == (name, status, role, "p")
    assert event.to_dict()["type"] == name.split(".")[-1]


def test_to_dict_leaves_out_what_is_not_set() -> None:
    assert set(AgentEvent.phase_started("p").to_dict()) == {"event", "type", "status", "emitted_at", "phase"}


def test_json_round_trip_keeps_everything_and_readable_text() -> None:
    event = AgentEvent.failed("r", "p", AgentFailureClass.RATE_LIMIT, "zu viel é").with_data({"n": [1, None]})
    assert "é" in event.to_json()
    assert AgentEvent.from_json(event.to_json()) == event


def test_from_dict_accepts_members_and_forgives_the_rest() -> None:
    event = AgentEvent.from_dict(
        {"event": AgentEventName.AGENT_READY, "status": AgentEventStatus.READY, "failure_class": 3}
    )
    assert (event.event, event.failure_class, event.role) == (AgentEventName.AGENT_READY, None, None)
    assert event.emitted_at
    member = AgentEvent.from_dict(
        {"event": "agent.ready", "status": "ready", "failure_class": AgentFailureClass.UNKNOWN}
    )
    assert member.failure_class is AgentFailureClass.UNKNOWN


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"status": "ready"}, "event field missing or invalid"),
        ({"event": 3, "status": "ready"}, "event field missing or invalid"),
        ({"event": "agent.ready"}, "status field missing or invalid"),
        ({"event": "agent.unheard", "status": "ready"}, "agent.unheard"),
    ],
)
def test_from_dict_names_the_bad_field(data: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AgentEvent.from_dict(data)


def test_otel_attributes_hold_no_data() -> None:
    event = AgentEvent.failed("r", "p", AgentFailureClass.TOOL_ERROR, "d").with_project(1).with_data({"x": 1})
    assert event.to_otel_attributes() == {
        "agent.event": "agent.failed",
        "agent.event.status": "failed",
        "agent.event.timestamp": event.emitted_at,
        "agent.role": "r",
        "agent.phase": "p",
        "agent.project_id": 1,
        "agent.failure_class": "tool_error",
        "agent.detail": "d",
    }
    assert set(AgentEvent.phase_started("p").to_otel_attributes()) == {
        "agent.event",
        "agent.event.status",
        "agent.event.timestamp",
        "agent.phase",
    }
