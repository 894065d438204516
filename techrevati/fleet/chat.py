"""One shape of conversation for all providers, and what each makes of it.  Pure.

    {"role": "system" | "user" | "assistant" | "tool", "content": str | [parts], "tool_calls": […], "tool_call_id": …}

It is OpenAI's chat shape.  A tool call is {"id", "type": "function", "function": {"name", "arguments": JSON text}},
a tool's answer {"role": "tool", "tool_call_id", "content"}, with "is_error" where it failed.  An assistant message may
carry "thinking": signed blocks that Anthropic wants back unchanged.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from techrevati.fleet.models import Message

Block = dict[str, Any]

_OPENAI_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "reasoning_content")
CACHED: Block = {"cache_control": {"type": "ephemeral"}}
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


def for_openai(messages: Sequence[Message]) -> list[Message]:
    """Give the messages with only what the API knows; arguments as text."""
    sent = []
    for message in messages:
        known = {key: message[key] for key in _OPENAI_KEYS if key in message}
        if known.get("tool_calls"):
            known["tool_calls"] = [_call_as_text(call) for call in known["tool_calls"]]
        else:
            known.pop("tool_calls", None)  # an empty list is refused
        sent.append(known)
    return sent


def _call_as_text(call: Mapping[str, Any]) -> Message:
    function = call["function"]
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {**call, "type": "function", "function": {**function, "arguments": text}}


def for_anthropic(messages: Sequence[Message]) -> tuple[list[Block], list[Message]]:
    """Give the system blocks, and the messages as content blocks.

    Neighbours of one role become one message, and the results of tools come first in theirs: the API asks for both.
    """
    system: list[Block] = []
    merged: list[tuple[str, list[Block]]] = []
    for message in messages:
        role = message["role"]
        if role in ("system", "developer"):
            system += _content(message.get("content"))
            continue
        blocks = _blocks(message)
        if not blocks:
            continue
        side = "assistant" if role == "assistant" else "user"
        if merged and merged[-1][0] == side:
            merged[-1][1].extend(blocks)
        else:
            merged.append((side, blocks))
    return system, [
        {"role": side, "content": sorted(blocks, key=lambda block: block["type"] != "tool_result")}
        for side, blocks in merged
    ]


def marked_for_cache(system: Sequence[Block], messages: Sequence[Message]) -> tuple[list[Block], list[Message]]:
    """Ask Anthropic to cache the prompt: up to the end of its instructions, and up to its last message."""
    marked = [*system[:-1], {**system[-1], **CACHED}] if system else []
    if not messages:
        return marked, []
    *before, last = messages
    *content, end = last["content"]
    return marked, [*before, {**last, "content": [*content, {**end, **CACHED}]}]


def _blocks(message: Message) -> list[Block]:
    content = _content(message.get("content"))
    if message["role"] == "tool":
        result: Block = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": content}
        if message.get("is_error"):
            result["is_error"] = True
        return [result]
    if message["role"] != "assistant":
        return content
    calls = [
        {
            "type": "tool_use",
            "id": call["id"],
            "name": call["function"]["name"],
            "input": _arguments(call["function"]["arguments"]),
        }
        for call in message.get("tool_calls") or ()
    ]
    return [*message.get("thinking", ()), *content, *calls]


def _arguments(given: Any) -> dict[str, Any]:
    """Read a call's arguments; what a model cut short or garbled is handed back as it said it."""
    try:
        value = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return {"unreadable": given}
    return value if isinstance(value, dict) else ({} if value in (None, "") else {"value": value})


def _content(content: Any) -> list[Block]:
    """Give content as blocks; empty text is left out, since the API refuses it."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    return [_part(part) for part in parts if part.get("type") != "text" or part["text"]]


def _part(part: Block) -> Block:
    if part.get("type") != "image_url":
        return part  # text is alike on both sides; anything else is the author's, in the provider's own shape
    url: str = part["image_url"]["url"]
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}


def options_for_anthropic(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give a call's options by the names Anthropic has for them; those it shares, or alone has, stay."""
    given = dict(options)
    most = given.pop("max_completion_tokens", None)
    given.setdefault("max_tokens", 4096 if most is None else most)
    if (stop := given.pop("stop", None)) is not None:
        given["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    if given.get("tools"):
        given["tools"] = [_tool(tool) for tool in given["tools"]]
    else:
        given.pop("tools", None)
    choice, parallel = given.pop("tool_choice", None), given.pop("parallel_tool_calls", None)
    if choice is not None or parallel is False:
        chosen = _choice("auto" if choice is None else choice)
        if parallel is False and chosen["type"] != "none":
            chosen["disable_parallel_tool_use"] = True
        given["tool_choice"] = chosen
    return given


def _tool(tool: Mapping[str, Any]) -> Block:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)
    found = {"name": function["name"], "input_schema": function.get("parameters") or {"type": "object"}}
    if function.get("description"):
        found["description"] = function["description"]
    return found


def _choice(choice: Any) -> Block:
    if isinstance(choice, str):
        return {"type": _CHOICES.get(choice, choice)}
    if isinstance(choice.get("function"), Mapping):
        return {"type": "tool", "name": choice["function"]["name"]}
    return dict(choice)
