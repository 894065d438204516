"""What a running tool shows: progress and activities, as events that need no commit.

Each update is one full snapshot with ``replace: true``.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from techrevati.agent.context import RunIdentity
from techrevati.agent.events import ActivitySnapshot
from techrevati.agent.tools import ToolProgress

PROGRESS = "tool-call-progress"
SCHEMA = "tool-call-progress.v1"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call shows something."""

    identity: RunIdentity
    call_id: str
    tool_name: str


def progress_content(of: Caller, update: ToolProgress, now_ms: int) -> dict[str, Any]:
    """Give the content of one progress event; whose call it is stands in it, put there by the runtime."""
    identity = of.identity
    told: dict[str, Any] = {
        **update.extra,
        "type": PROGRESS,
        "schema": SCHEMA,
        "node_id": f"tool_call:{of.call_id}",
        "parent_node_id": f"tool_call:{identity.parent_tool_call_id}" if identity.parent_tool_call_id else None,
        "parent_call_id": identity.parent_tool_call_id,
        "call_id": of.call_id,
        "tool_name": of.tool_name,
        "status": update.status,
        "progress": update.progress,
        "loaded": update.loaded,
        "total": update.total,
        "message": update.message,
        "run_id": identity.run_id,
        "parent_run_id": identity.parent_run_id,
        "thread_id": identity.thread_id,
        "updated_at_ms": now_ms,
    }
    return {key: value for key, value in told.items() if value is not None}


def listeners(of: Caller, show: Callable[[ActivitySnapshot], None], now_ms: Callable[[], int]) -> dict[str, Any]:
    """Give what a call's context tells its updates to; the body of a sync tool tells them from its own thread.

    Args:
        show: Called on the loop's thread.
    """
    loop, home = asyncio.get_running_loop(), threading.get_ident()

    def tell(event: ActivitySnapshot) -> None:
        if threading.get_ident() == home:
            show(event)
        else:
            loop.call_soon_threadsafe(show, event)

    def on_progress(update: ToolProgress) -> None:
        content = progress_content(of, update, now_ms())
        tell(ActivitySnapshot(f"tool_call:{of.call_id}", PROGRESS, content, True))

    def on_activity(stream_id: str, activity_type: str, content: Mapping[str, Any]) -> None:
        tell(ActivitySnapshot(stream_id, activity_type, dict(content), True))

    return {"on_progress": on_progress, "on_activity": on_activity}
