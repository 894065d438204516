"""The messages the runtime writes itself, and the marks it knows them by.

A mark is `metadata["mark"]`: what a message is can be seen without reading its text.
"""

from typing import Any

import msgspec

from techrevati.agent.suspension import SuspendedCall
from techrevati.agent.threads.message import Message, Role, ToolCall, Visibility
from techrevati.agent.tools import ToolResult

MARK = "mark"
PLACEHOLDER = "awaiting"
"""The call of this tool message waits; a later message has its result."""
INTERRUPTED = "interrupted"
CONTINUATION = "continuation"
PARTIAL = "partial"
"""An assistant message that was cut off; the next one goes on where it ends."""
REMINDER = "reminder"
CONTEXT = "context"
STEERING = "steering"

CONTINUE_BROKEN = (
    "Your answer broke off while it was being sent; what arrived is above. Go on exactly where it ends, "
    "repeating nothing."
)
CONTINUE_TRUNCATED = "Your answer reached the length limit. Go on exactly where it ends, repeating nothing."
NO_RESULT = "The execution of this call was interrupted; there is no result."
ABANDONED = "Nobody answered; the user went on without this call."
DENIED = "The user denied this call."


def has_mark(message: Message, mark: str) -> bool:
    return message.metadata.get(MARK) == mark


def assistant(message_id: str, text: str, calls: tuple[ToolCall, ...], *, mark: str | None = None) -> Message:
    return Message.assistant(text, calls, id=message_id, metadata={MARK: mark} if mark else {})


def tool_message(message_id: str, call_id: str, result: ToolResult) -> Message:
    """Give the model the whole result as JSON."""
    return Message.tool(msgspec.json.encode(result.to_json()).decode(), call_id, id=message_id)


def placeholder(message_id: str, call: SuspendedCall) -> Message:
    """Stand in for the result of a call that waits."""
    text = f"Tool {call.tool_name!r} has not run: it waits for approval. Its result will follow."
    return Message.tool(text, call.call_id, id=message_id, metadata={MARK: PLACEHOLDER})


def no_result(call_id: str) -> Message:
    """Stand in for a result that never came; only in the model's view, never stored."""
    return Message.tool(NO_RESULT, call_id, id=f"no_result_{call_id}", metadata={MARK: INTERRUPTED})


def interrupted(message_id: str, *, using_tools: bool) -> Message:
    """Tell the next run's model that this one was cut short."""
    where = "while it was using tools" if using_tools else "during inference"
    return Message(
        id=message_id,
        role=Role.USER,
        content=f"[The previous run was interrupted {where}.]",
        visibility=Visibility.INTERNAL,
        metadata={MARK: INTERRUPTED},
    )


def go_on(message_id: str, text: str) -> Message:
    """Ask the model to continue its answer."""
    return Message.user(text, id=message_id, visibility=Visibility.INTERNAL, metadata={MARK: CONTINUATION})


def reminder(message_id: str, text: str) -> Message:
    return Message.system(
        f"<system-reminder>{text}</system-reminder>",
        id=message_id,
        visibility=Visibility.INTERNAL,
        metadata={MARK: REMINDER},
    )


def steering(message_id: str, text: str) -> Message:
    """Carry what the user says into the live run."""
    return Message.user(text, id=message_id, metadata={MARK: STEERING})


def note(message_id: str, role: str, text: str, visibility: str, **metadata: Any) -> Message:
    """Store a context message of target ``conversation``."""
    return Message(
        id=message_id,
        role=Role(role),
        content=text,
        visibility=Visibility(visibility),
        metadata={MARK: CONTEXT, **metadata},
    )
