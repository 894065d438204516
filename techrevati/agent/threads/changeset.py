"""What one write adds to a thread."""

from enum import StrEnum
from typing import Any

import msgspec

from techrevati.agent.state.patch import TrackedPatch
from techrevati.agent.threads.message import Message
from techrevati.agent.threads.runs import RunMeta


class CheckpointReason(StrEnum):
    """Why a write happens."""

    USER_MESSAGE = "UserMessage"
    ASSISTANT_TURN_COMMITTED = "AssistantTurnCommitted"
    TOOL_RESULTS_COMMITTED = "ToolResultsCommitted"
    RUN_FINISHED = "RunFinished"


class ThreadChangeSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Messages, patches and intents of one moment of a run; written whole or not at all.

    Attributes:
        run_meta: For the index of runs; None touches the run's time only.
        actions: The intent log (`AnyStateAction.entry`): what was wanted, next to what it changed.
        snapshot: The whole state.  It stands for the patches of this and every earlier change.
    """

    run_id: str
    reason: CheckpointReason
    parent_run_id: str | None = None
    run_meta: RunMeta | None = None
    messages: tuple[Message, ...] = ()
    patches: tuple[TrackedPatch, ...] = ()
    actions: tuple[dict[str, Any], ...] = ()
    snapshot: dict[str, Any] | None = None

    @property
    def is_empty(self) -> bool:
        """Say whether there is nothing to write; the end of a run always is something."""
        if self.reason is CheckpointReason.RUN_FINISHED or self.run_meta is not None or self.snapshot is not None:
            return False
        return not (self.messages or self.patches or self.actions)
