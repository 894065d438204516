"""What a running tool shows: progress and activities, as events that need no commit.

Each update is one full snapshot with ``replace: true``.
"""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from techrevati.agent.events import ActivitySnapshot
from techrevati.agent.loop.draft import Draft
from techrevati.agent.threads.message import ToolCall
from techrevati.agent.tools import ToolProgress

PROGRESS = "tool-call-progress"
SCHEMA = "tool-call-progress.v1"


def progress_content(draft: Draft, call: ToolCall, update: ToolProgress) -> dict[str, Any]:
    """Give the content of one progress event; whose call it is stands in it, put there by the runtime."""
    identity = draft.identity
    told: dict[str, Any] = {
        **update.extra,
        "type": PROGRESS,
        "schema": SCHEMA,
        "node_id": f"tool_call:{call.id}",
        "parent_node_id": f"tool_call:{identity.parent_tool_call_id}" if identity.parent_tool_call_id else None,
        "parent_call_id": identity.parent_tool_call_id,
        "call_id": call.id,
        "tool_name": call.name,
        "status": update.status,
        "progress": update.progress,
        "loaded": update.loaded,
        "total": update.total,
        "message": update.message,
        "run_id": identity.run_id,
        "parent_run_id": identity.parent_run_id,
        "thread_id": identity.thread_id,
        "updated_at_ms": draft.now_ms(),
    }
    return {key: value for key, value in told.items() if value is not None}


def listeners(draft: Draft, call: ToolCall) -> dict[str, Any]:
    """Give what a call's context tells its updates to; the body of a sync tool tells them from its own thread."""
    loop, home = asyncio.get_running_loop(), threading.get_ident()

    def tell(event: ActivitySnapshot) -> None:
        if threading.get_ident() == home:
            draft.tell_now(event)
        else:
            loop.call_soon_threadsafe(draft.tell_now, event)

    def on_progress(update: ToolProgress) -> None:
        content = progress_content(draft, call, update)
        tell(ActivitySnapshot(f"tool_call:{call.id}", PROGRESS, content, True))

    def on_activity(stream_id: str, activity_type: str, content: Mapping[str, Any]) -> None:
        tell(ActivitySnapshot(stream_id, activity_type, dict(content), True))

    return {"on_progress": on_progress, "on_activity": on_activity}
