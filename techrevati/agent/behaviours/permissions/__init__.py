"""Who may call which tool with which arguments, and what is asked of a person."""

from techrevati.agent.behaviours.permissions.confirm import Remember
from techrevati.agent.behaviours.permissions.gate import ParentThreads, Permissions
from techrevati.agent.behaviours.permissions.policy import Layer, Policy, Verdict, decide
from techrevati.agent.behaviours.permissions.rules import BadRule, Effect, Rule, allow, ask, deny, parse_rule
from techrevati.agent.behaviours.permissions.state import (
    AddRule,
    ClearTools,
    PermissionPolicy,
    RemoveTool,
    RevokeRule,
    SessionPermissions,
    SetDefault,
    SetTool,
)

__all__ = [
    "AddRule",
    "BadRule",
    "ClearTools",
    "Effect",
    "Layer",
    "ParentThreads",
    "PermissionPolicy",
    "Permissions",
    "Policy",
    "Remember",
    "RemoveTool",
    "RevokeRule",
    "Rule",
    "SessionPermissions",
    "SetDefault",
    "SetTool",
    "Verdict",
    "allow",
    "ask",
    "decide",
    "deny",
    "parse_rule",
]
