"""The conversation as a model may see it: every call followed by exactly one result.

    thread (append-only) ──▶ drop results nobody asked for ──▶ placeholder or result, not both ──▶
    results behind their call ──▶ a note where a result is missing

Providers refuse a conversation in which a call has no result, two, or one that comes elsewhere.
"""

from collections.abc import Sequence

from techrevati.agent import wording
from techrevati.agent.threads.message import Message, Role


class _Result:
    """The place right behind a call, until its result is found."""

    __slots__ = ("call_id", "found")

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        self.found: Message | None = None

    def take(self, message: Message) -> None:
        if self.found is None or wording.has_mark(self.found, wording.PLACEHOLDER):
            self.found = message

    @property
    def message(self) -> Message:
        return self.found or wording.no_result(self.call_id)


def model_view(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Give the messages of a request's history.

    A call id that is issued again later has its later results only for the later call.
    """
    shown: list[Message | _Result] = []
    issued: dict[str, _Result] = {}
    for message in messages:
        if message.role is Role.TOOL:
            if (place := issued.get(message.tool_call_id or "")) is not None:
                place.take(message)
            continue
        shown.append(message)
        for call in message.tool_calls:
            issued[call.id] = _Result(call.id)
            shown.append(issued[call.id])
    return tuple(entry.message if isinstance(entry, _Result) else entry for entry in shown)


def answer_of(messages: Sequence[Message], run_id: str) -> str:
    """Give the text of a run's last answer, with the pieces it was continued from; "" if it called tools last."""
    pieces: list[str] = []
    for message in reversed(messages):
        if message.run_id != run_id:
            break
        if message.role is Role.ASSISTANT:
            if message.tool_calls:
                break
            pieces.append(message.content)
        elif pieces and not wording.has_mark(message, wording.CONTINUATION):
            break
    return "".join(reversed(pieces))
