"""Permissions, quality gates, handoff records."""

from __future__ import annotations

import pytest

from techrevati.runtime import (
    Handoff,
    PermissionEnforcer,
    PermissionMode,
    PermissionPolicy,
    QualityGate,
    QualityLevel,
    RolePermissionConfig,
)
from techrevati.runtime.permissions import FailClosedPermissionPolicy

NOT_LISTED = "tool 'read' not in allowed list for role 'dev'"
MODE = PermissionMode.WORKSPACE_WRITE


def policy(**config: list[str] | None) -> PermissionPolicy:
    roles = {"dev": RolePermissionConfig("dev", MODE, **config)}  # type: ignore[arg-type]  # by test
    return PermissionPolicy(roles, {"deploy": PermissionMode.FULL_ACCESS, "read": PermissionMode.READ_ONLY})


def test_unknown_roles_are_allowed_unless_the_policy_fails_closed() -> None:
    outcome = policy().authorize("stranger", "read")
    assert (outcome.allowed, outcome.reason) == (True, "no config for role, default allow")
    assert (outcome.active_mode, outcome.required_mode) == ("", "")
    closed = FailClosedPermissionPolicy({"dev": RolePermissionConfig("dev", MODE)})
    refused = closed.authorize("stranger", "read")
    assert (refused.allowed, refused.reason) == (False, "no config for role 'stranger', default deny")
    assert closed.authorize("dev", "read").allowed
    assert PermissionPolicy().authorize("anyone", "anything").allowed


@pytest.mark.parametrize(
    ("config", "tool", "allowed", "reason", "required"),
    [
        ({"denied_tools": ["RM"]}, "rm", False, "tool 'rm' is explicitly denied for role 'dev'", "N/A"),
        ({}, "deploy", False, "role 'dev' has WORKSPACE_WRITE but tool requires FULL_ACCESS", "FULL_ACCESS"),
        ({}, "Deploy", True, None, "READ_ONLY"),
        ({"allowed_tools": ["Read"]}, "read", True, None, "READ_ONLY"),
        (
            {"allowed_tools": ["x"]},
            "read",
            False,
            NOT_LISTED,
            "READ_ONLY",
        ),
        ({"allowed_tools": []}, "read", False, NOT_LISTED, "READ_ONLY"),
    ],
)
def test_the_order_of_checks(
    config: dict[str, list[str]], tool: str, allowed: bool, reason: str | None, required: str
) -> None:
    outcome = policy(**config).authorize("dev", tool)
    assert (outcome.allowed, outcome.reason) == (allowed, reason)
    assert (outcome.active_mode, outcome.required_mode) == ("WORKSPACE_WRITE", required)
    assert set(outcome.to_dict()) == {"allowed", "active_mode", "required_mode"} | ({"reason"} if reason else set())


def test_enforcer_filters_tools_by_name() -> None:
    def read() -> None: ...

    def deploy() -> None: ...

    class Named:
        def __call__(self) -> None: ...

        def __str__(self) -> str:
            return "deploy"

    enforcer = PermissionEnforcer(policy())
    assert enforcer.is_allowed("dev", "read")
    assert not enforcer.check("dev", "deploy").allowed
    assert enforcer.filter_tools("dev", [deploy, read, Named()]) == [read]


def test_gates_compare_levels() -> None:
    gate = QualityGate(QualityLevel.STRICT)
    levels = (QualityLevel.RELEASE, QualityLevel.STANDARD, None)
    passed, failed, unknown = (gate.evaluate(level) for level in levels)
    assert (passed.is_satisfied(), failed.is_satisfied(), unknown.satisfied) == (True, False, False)
    assert gate.is_satisfied_by(QualityLevel.STRICT)
    assert passed.to_dict() == {"satisfied": True, "required_level": "STRICT", "observed_level": "RELEASE"}
    assert unknown.to_dict()["observed_level"] is None
    assert QualityLevel.MINIMAL.label == "Minimal"


def test_handoffs_hand_out_copies() -> None:
    handoff = Handoff("a", "b", "p", "why", {"k": 1}, 7, "w")
    record = handoff.to_dict()
    record["context"]["k"] = 2
    assert handoff.context == {"k": 1}
    assert list(record) == [
        "source_role", "target_role", "phase", "reason",
        "context", "project_id", "target_worker_id", "created_at",
    ]  # fmt: skip
