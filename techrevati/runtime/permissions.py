"""Who may use which tool.

role, tool ──authorize──▶ denied list ─▶ mode ─▶ allowed list ──▶ outcome with its reason
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class PermissionMode(IntEnum):
    """How much a role may touch, in rising order."""

    READ_ONLY = 1
    WORKSPACE_WRITE = 2
    FULL_ACCESS = 3


@dataclass(frozen=True)
class PermissionOutcome:
    """May it, and if not, why not."""

    allowed: bool
    reason: str | None = None
    active_mode: str = ""
    required_mode: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping; empty fields are left out."""
        record: dict[str, Any] = {"allowed": self.allowed}
        optional = {
            "reason": self.reason,
            "active_mode": self.active_mode,
            "required_mode": self.required_mode,
        }
        record.update((key, value) for key, value in optional.items() if value)
        return record


@dataclass
class RolePermissionConfig:
    """What one role may do; `allowed_tools=None` means no whitelist."""

    role: str
    mode: PermissionMode
    allowed_tools: list[str] | None = None
    denied_tools: list[str] = field(default_factory=list)


class PermissionPolicy:
    """The table of roles and of what each tool requires.

    A role without a configuration may do everything; `FailClosedPermissionPolicy` turns that round.
    """

    def __init__(
        self,
        role_configs: dict[str, RolePermissionConfig] | None = None,
        tool_requirements: dict[str, PermissionMode] | None = None,
    ) -> None:
        self.role_configs = {} if role_configs is None else role_configs
        self.tool_requirements = {} if tool_requirements is None else tool_requirements

    def authorize(self, role: str, tool_name: str) -> PermissionOutcome:
        """Decide one use of one tool; the denied list is asked first, the whitelist last."""
        config = self.role_configs.get(role)
        if config is None:
            return self._unknown_role(role)
        required = self.tool_requirements.get(tool_name, PermissionMode.READ_ONLY)
        tool = tool_name.lower()
        if any(denied.lower() == tool for denied in config.denied_tools):
            reason = f"tool '{tool_name}' is explicitly denied for role '{role}'"
            return PermissionOutcome(False, reason, config.mode.name, "N/A")
        if config.mode < required:
            reason = f"role '{role}' has {config.mode.name} but tool requires {required.name}"
            return PermissionOutcome(False, reason, config.mode.name, required.name)
        allowed = config.allowed_tools
        if allowed is not None and all(name.lower() != tool for name in allowed):
            reason = f"tool '{tool_name}' not in allowed list for role '{role}'"
            return PermissionOutcome(False, reason, config.mode.name, required.name)
        return PermissionOutcome(True, None, config.mode.name, required.name)

    def _unknown_role(self, role: str) -> PermissionOutcome:
        return PermissionOutcome(True, "no config for role, default allow")


class FailClosedPermissionPolicy(PermissionPolicy):
    """The same table, but a role it does not hold may do nothing."""

    def _unknown_role(self, role: str) -> PermissionOutcome:
        return PermissionOutcome(False, f"no config for role '{role}', default deny")


class PermissionEnforcer:
    """What a session asks before it runs a tool."""

    def __init__(self, policy: PermissionPolicy) -> None:
        self.policy = policy

    def check(self, role: str, tool_name: str) -> PermissionOutcome:
        """The policy's answer, with its reason."""
        return self.policy.authorize(role, tool_name)

    def is_allowed(self, role: str, tool_name: str) -> bool:
        """The policy's answer, as a claim."""
        return self.check(role, tool_name).allowed

    def filter_tools(self, role: str, tools: list[Callable[..., Any]]) -> list[Callable[..., Any]]:
        """The callables of `tools` this role may use, in order, judged by their ``__name__``."""
        return [tool for tool in tools if self.is_allowed(role, getattr(tool, "__name__", str(tool)))]
