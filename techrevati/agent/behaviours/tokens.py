"""Estimate tokens without a tokenizer: near enough to decide what fits, the same on every worker.

4 Latin characters or 1.5 CJK characters are a token; a message costs 4 more, a tool call or descriptor 20.
"""

import re
from collections.abc import Iterable

import msgspec

from techrevati.agent.threads.message import Message, Role
from techrevati.agent.tools import ToolDescriptor

PER_MESSAGE = 4
PER_TOOL = 20
# Kana, CJK ideographs with their extensions, Hangul, fullwidth forms.
_CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


def text_tokens(text: str) -> int:
    """Estimate the tokens of a text."""
    wide = 0 if text.isascii() else len(_CJK.findall(text))
    # Twelfths keep it in whole numbers: 3 of them a Latin character, 8 a CJK one.
    return -(-((len(text) - wide) * 3 + wide * 8) // 12)


def message_tokens(message: Message) -> int:
    """Estimate the tokens of a message with its tool calls."""
    calls = sum(
        PER_TOOL + text_tokens(call.name) + text_tokens(msgspec.json.encode(call.arguments).decode())
        for call in message.tool_calls
    )
    return PER_MESSAGE + text_tokens(message.content) + calls


def tool_tokens(tools: Iterable[ToolDescriptor]) -> int:
    """Estimate what the descriptors of the tools on offer cost in every request."""
    return sum(
        PER_TOOL
        + text_tokens(tool.id)
        + text_tokens(tool.description)
        + text_tokens(msgspec.json.encode(tool.parameters).decode())
        for tool in tools
    )


def system_tokens(messages: Iterable[Message]) -> int:
    return sum(message_tokens(message) for message in messages if message.role is Role.SYSTEM)
