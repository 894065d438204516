"""An answer as it comes in: gathered into a reply, and told to whoever listens, piece by piece."""

from collections.abc import Callable, Mapping
from typing import Any

OnDelta = Callable[[str], None]
OnEvent = Callable[[str, dict[str, Any]], None]


class Answer:
    """One answer under way."""

    def __init__(self, on_delta: OnDelta | None = None, on_event: OnEvent | None = None) -> None:
        self._on_delta, self._on_event = on_delta, on_event
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self.stop_reason = ""

    @property
    def spoke(self) -> bool:
        """Whether a listener has got text that cannot be taken back."""
        return bool(self._text)

    def say(self, text: str) -> None:
        if not text:
            return
        self._text.append(text)
        if self._on_delta is not None:
            self._on_delta(text)
        self._tell("text_delta", {"text": text})

    def reason(self, text: str) -> None:
        if text:
            self._reasoning.append(text)
            self._tell("reasoning_delta", {"text": text})

    def conceal(self, value: str) -> None:
        """Pass on reasoning that only the provider can read."""
        if value:
            self._tell("reasoning_encrypted", {"value": value})

    def call(self, index: int, call_id: str | None, name: str | None, arguments: str | None) -> None:
        """Begin the call at `index`, or go on with it."""
        call = self._calls.get(index)
        if call is None:
            call = self._calls[index] = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            call["id"], call["function"]["name"] = call_id or f"call_{index}", name or ""
            self._tell("tool_call_start", {"index": index, "id": call["id"], "name": call["function"]["name"]})
        if arguments:
            call["function"]["arguments"] += arguments
            self._tell("tool_call_delta", {"index": index, "id": call["id"], "arguments": arguments})

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls in order; one without arguments has an empty object."""
        calls = [self._calls[index] for index in sorted(self._calls)]
        for call in calls:
            call["function"]["arguments"] = call["function"]["arguments"] or "{}"
        return calls

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        if self._on_event is not None:
            self._on_event(kind, data)


def split_options(options: Mapping[str, Any]) -> tuple[Answer, dict[str, Any]]:
    """Give the answer that the options' listeners will hear, and what is the provider's."""
    rest = dict(options)
    return Answer(rest.pop("on_delta", None), rest.pop("on_event", None)), rest
