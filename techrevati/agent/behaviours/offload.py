"""Show large tool results as previews, and let the model read the rest when it wants it.

    tool message in the thread (whole) ──▶ in the request: head and tail, size, id
                                       ◀── read_artefact(id, offset)

The thread is the store: nothing is written elsewhere, so nothing can be lost or leak there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from techrevati.agent.actions import AddRequestTransform, BeforeInferenceAction, Effect, RequestView
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.behaviours.tokens import message_tokens
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.threads.message import Message, Role
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolError
from techrevati.agent.typed_tool import FunctionTool, tool

READ_TOOL = "read_artefact"


@dataclass(frozen=True, slots=True)
class OffloadPolicy:
    """What is large (tokens), and how much of it is shown (characters)."""

    threshold: int = 2048
    head: int = 1500
    tail: int = 500
    page: int = 6000
    """Characters that one `read_artefact` gives."""


def preview(policy: OffloadPolicy, message: Message) -> Message:
    """Give what stands for a large result: valid JSON, as results are, with the way to the rest."""
    text = message.content
    record = _decoded(text)
    kept: dict[str, Any] = {key: record[key] for key in ("tool_name", "status", "message") if key in record}
    if isinstance(kept.get("message"), str):
        kept["message"] = kept["message"][: policy.head]
    shown = {
        **kept,
        "artefact": {
            "id": message.tool_call_id,
            "characters": len(text),
            "head": text[: policy.head],
            "tail": text[-policy.tail :] if policy.tail else "",
            "note": f"The result is too long to show. Read more of it with {READ_TOOL}(id, offset).",
        },
    }
    return msgspec.structs.replace(message, content=msgspec.json.encode(shown).decode())


def _decoded(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def offload(policy: OffloadPolicy, messages: Sequence[Message]) -> tuple[Message, ...]:
    """Replace large tool results by previews; what the model read back from one is shown as it is."""
    reads = {call.id for message in messages for call in message.tool_calls if call.name == READ_TOOL}
    return tuple(
        preview(policy, message)
        if message.role is Role.TOOL
        and message.tool_call_id not in reads
        and len(message.content) > policy.head + policy.tail
        and message_tokens(message) >= policy.threshold
        else message
        for message in messages
    )


def read_tool(policy: OffloadPolicy | None = None) -> FunctionTool:
    """Make the tool that reads what a preview leaves out."""
    limit = (policy or OffloadPolicy()).page

    @tool(id=READ_TOOL)
    async def read_artefact(id: str, ctx: ToolCallContext, offset: int = 0) -> dict[str, Any]:
        """Read more of a tool result that was shown as a preview: its id, and the character to begin at."""
        if offset < 0:
            raise ToolError(f"offset {offset} is refused: use 0 or more", "invalid_arguments")
        found = next((m for m in reversed(ctx.messages) if m.role is Role.TOOL and m.tool_call_id == id), None)
        if found is None:
            raise ToolError(f"no result with the id {id!r} in this conversation", "not_found", "unknown_artefact")
        end = min(len(found.content), offset + limit)
        page = {"id": id, "offset": offset, "characters": len(found.content), "text": found.content[offset:end]}
        return page | ({"next_offset": end} if end < len(found.content) else {})

    return read_artefact


class ArtefactOffload(AgentBehavior):
    """Shows large tool results as previews; give the agent `read_tool` beside it."""

    id = "artefact_offload"

    def __init__(self, policy: OffloadPolicy | None = None) -> None:
        self.policy = policy or OffloadPolicy()
        self.tools = (read_tool(self.policy),)

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        return AddRequestTransform(self.shorten)

    def shorten(self, view: RequestView) -> RequestView:
        """Give the request with previews, unless the model could not read the rest."""
        if not any(each.id == READ_TOOL for each in view.tools):
            return view
        return replace(view, messages=offload(self.policy, view.messages))
