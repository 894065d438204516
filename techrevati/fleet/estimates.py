"""What a model call will use, guessed before it is made: what gates book and budgets reserve."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from techrevati.fleet.models import ModelRequest
from techrevati.fleet.prices import Tokens, cost_micros

BYTES_PER_TOKEN = 4
"""Of English prose in JSON; other scripts and code use more tokens, so their calls settle at more than was booked."""
OUTPUT_TOKENS = 1000
"""What an answer is taken for whose length nobody limits."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens and micro-dollars of one call to come."""

    input_tokens: int
    output_tokens: int
    cost_micros: int


def estimate(name: str, request: ModelRequest, output_tokens: int | None = None) -> Estimate:
    """Guess a call of the model `name`; its output is what the options allow, or else `output_tokens`."""
    size = sum(len(msgspec.json.encode(message, enc_hook=repr)) for message in request.messages)
    tools = request.options.get("tools")
    size += len(msgspec.json.encode(tools, enc_hook=repr)) if tools else 0
    asked = max(1, -(-size // BYTES_PER_TOKEN))
    made = _most(request.options)
    if made is None:
        made = OUTPUT_TOKENS if output_tokens is None else output_tokens
    return Estimate(asked, made, cost_micros(name, Tokens(asked, made)))


def _most(options: Mapping[str, Any]) -> int | None:
    for key in ("max_completion_tokens", "max_tokens"):
        if isinstance(value := options.get(key), int):
            return value
    return None
