"""Which messages stand or fall together: a tool call and its results, wherever these are.

Whoever shortens a conversation (context window, compaction) asks here where it may be cut.
"""

from collections.abc import Sequence

from techrevati.agent.threads.message import Message, Role


def rounds(messages: Sequence[Message]) -> list[tuple[int, ...]]:
    """Give the messages that belong together, as indexes, by the first of each.

    A result belongs to the last call of its id before it.  System messages belong to nobody and are left out.
    """
    groups: list[list[int]] = []
    asked: dict[str, list[int]] = {}
    for index, message in enumerate(messages):
        if message.role is Role.SYSTEM:
            continue
        group = asked.get(message.tool_call_id or "") if message.role is Role.TOOL else None
        if group is None:
            group = []
            groups.append(group)
        group.append(index)
        for call in message.tool_calls:
            asked[call.id] = group
    return [tuple(group) for group in groups]


def is_whole(messages: Sequence[Message], cut: int) -> bool:
    """Tell whether no call before the cut has a result after it."""
    return all(group[-1] < cut or group[0] >= cut for group in rounds(messages))
