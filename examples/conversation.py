"""What an offline model reads of a chat, and how it answers: the tool calls of this run, and the next ones.

messages ──read──▶ Conversation(question, calls with their results) ──▶ says(…) | asks(…)
"""

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from examples.offline_model import count_tokens, price
from techrevati.fleet.models import ModelReply, ModelRequest


@dataclass(frozen=True, slots=True)
class Done:
    """A tool call that the model has made, with what came of it."""

    id: str
    name: str
    arguments: dict[str, Any]
    status: str  # of the result: success, error, …; "" = there is none
    data: Any
    message: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """The user's last message, and every call since."""

    question: str
    calls: tuple[Done, ...]
    offered: frozenset[str]
    length: int  # messages so far; makes ids that are the same when a turn runs again

    def of(self, *names: str) -> list[Done]:
        return [call for call in self.calls if call.name in names]


def read(request: ModelRequest) -> Conversation:
    """Read the chat as the loop sends it; results are the JSON of `ToolResult`."""
    said = request.messages
    last = max((at for at, message in enumerate(said) if message["role"] == "user"), default=-1)
    after = said[last + 1 :]
    results = {message["tool_call_id"]: _result(message["content"]) for message in after if message["role"] == "tool"}
    calls = [call for message in after for call in message.get("tool_calls") or ()]
    offered = frozenset(tool["function"]["name"] for tool in request.options.get("tools", ()))
    done = tuple(_done(call, results.get(call["id"], {})) for call in calls)
    return Conversation(said[last]["content"] if last >= 0 else "", done, offered, len(said))


def _result(content: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"status": "success", "data": content}


def _done(call: dict[str, Any], result: dict[str, Any]) -> Done:
    function = call["function"]
    return Done(
        call["id"],
        function["name"],
        json.loads(function["arguments"]),
        str(result.get("status", "")),
        result.get("data"),
        str(result.get("message") or ""),
    )


async def says(request: ModelRequest, text: str) -> ModelReply:
    """End with a text, told in lines to whoever follows the run."""
    if on_delta := request.options.get("on_delta"):
        for line in text.splitlines(keepends=True):
            told = on_delta(line)
            if inspect.isawaitable(told):
                await told
    return _reply(request, text, [], "stop")


def asks(request: ModelRequest, calls: Sequence[tuple[str, dict[str, Any]]]) -> ModelReply:
    """Ask for tool calls; their ids follow from the place in the chat."""
    asked = [
        {
            "id": f"call-{len(request.messages)}-{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(calls)
    ]
    return _reply(request, "", asked, "tool_calls")


def _reply(request: ModelRequest, text: str, calls: list[dict[str, Any]], stop: str) -> ModelReply:
    given = sum(count_tokens(str(message.get("content") or "")) + 4 for message in request.messages)
    written = count_tokens(text) + sum(count_tokens(call["function"]["arguments"]) for call in calls)
    return ModelReply(
        text=text,
        input_tokens=given,
        output_tokens=written,
        cost_micros=price(given, written),
        model=request.model,
        tool_calls=calls,
        stop_reason=stop,
    )
