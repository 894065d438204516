"""Runs over threads: who asked, how they stand, and what the index keeps of them."""

from enum import StrEnum
from typing import Any

import msgspec

from techrevati.agent.suspension import ToolCallDecision
from techrevati.agent.threads.message import Message


class RunStatus(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"


class RunOrigin(StrEnum):
    """Who started a run."""

    USER = "user"
    SUBAGENT = "subagent"
    AG_UI = "ag_ui"
    AI_SDK = "ai_sdk"
    A2A = "a2a"
    INTERNAL = "internal"


class RunMeta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a change tells the index about its run."""

    agent_id: str
    origin: RunOrigin
    status: RunStatus
    parent_thread_id: str | None = None
    termination_code: str | None = None
    termination_detail: str | None = None


class RunRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run as the index has it; times in unix ms."""

    run_id: str
    thread_id: str
    agent_id: str
    origin: RunOrigin
    status: RunStatus
    created_at: int
    updated_at: int
    parent_run_id: str | None = None
    parent_thread_id: str | None = None
    termination_code: str | None = None
    termination_detail: str | None = None
    metadata: dict[str, Any] | None = None


class RunRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run is asked for with.  `state` begins a new thread, and replaces that of an old one."""

    agent_id: str
    thread_id: str | None = None
    run_id: str | None = None
    parent_run_id: str | None = None
    parent_thread_id: str | None = None
    resource_id: str | None = None
    origin: RunOrigin = RunOrigin.USER
    state: dict[str, Any] | None = None
    messages: tuple[Message, ...] = ()
    initial_decisions: tuple[ToolCallDecision, ...] = ()
