"""Letting an MCP server ask our model.

    server ──sampling/createMessage──▶ ModelPort ──▶ its answer, text only

The server chooses the words and we pay: `answer_with` bounds how much, and a server gets it only by being
given it.
"""

from typing import Any

from mcp.client import ClientRequestContext
from mcp.client.session import SamplingFnT
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CreateMessageRequestParams,
    CreateMessageResult,
    ErrorData,
    TextContent,
)

from techrevati.agent.model import InferenceError, ModelPort, ModelRequest, StopReason
from techrevati.agent.threads.message import Message

_STOPS = {
    StopReason.END_TURN: "endTurn",
    StopReason.MAX_TOKENS: "maxTokens",
    StopReason.STOP_SEQUENCE: "stopSequence",
    StopReason.TOOL_USE: "toolUse",
}


def answer_with(port: ModelPort, model: str, *, most_tokens: int = 4096) -> SamplingFnT:
    """Make the sampling handler of a connection.

    Args:
        most_tokens: A request for more output is granted this much.
    """

    async def answer(
        context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResult | ErrorData:
        messages: list[Message] = []
        if params.system_prompt:
            messages.append(Message.system(params.system_prompt))
        for message in params.messages:
            blocks = message.content if isinstance(message.content, list) else [message.content]
            if not all(isinstance(block, TextContent) for block in blocks):
                return ErrorData(code=INVALID_PARAMS, message="only text can be sampled from")
            text = "\n".join(block.text for block in blocks if isinstance(block, TextContent))
            messages.append(Message.user(text) if message.role == "user" else Message.assistant(text))
        options: dict[str, Any] = {"max_tokens": min(params.max_tokens, most_tokens)}
        if params.temperature is not None:
            options["temperature"] = params.temperature
        if params.stop_sequences:
            options["stop"] = list(params.stop_sequences)
        try:
            found = await port.infer(
                ModelRequest(model, tuple(messages), options=options, max_output_tokens=options["max_tokens"]),
                lambda _: None,
            )
        except InferenceError as error:
            return ErrorData(code=INTERNAL_ERROR, message=f"the model failed: {error}")
        return CreateMessageResult(
            role="assistant",
            content=TextContent(type="text", text=found.text),
            model=found.model or model,
            stop_reason=_STOPS.get(found.stop_reason or StopReason.END_TURN, "endTurn"),
        )

    return answer
