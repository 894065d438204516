"""What of a caller's conversation a child may see: said aloud, and complete."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from techrevati.agent.threads.message import Message, Role, Visibility


def forked(messages: Sequence[Message], new_id: Callable[[], str]) -> tuple[Message, ...]:
    """Copy visible messages without system ones; of calls and results only those that belong together."""
    shown = [m for m in messages if m.visibility is Visibility.ALL and m.role is not Role.SYSTEM]
    asked = {call.id for m in shown for call in m.tool_calls}
    paired = {m.tool_call_id for m in shown if m.role is Role.TOOL and m.tool_call_id in asked}
    copies = []
    for message in shown:
        if message.role is Role.TOOL and message.tool_call_id not in paired:
            continue
        calls = tuple(call for call in message.tool_calls if call.id in paired)
        if message.role is Role.ASSISTANT and not calls and not message.content.strip():
            continue
        copies.append(replace(message, id=new_id(), tool_calls=calls, metadata={}))
    return tuple(copies)
