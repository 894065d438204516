"""What each fault on the way to an MCP server says of the call that met it."""

import pickle

import anyio
import httpx2
import pytest
from mcp.shared.exceptions import MCPError
from mcp.types import CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_REQUEST, REQUEST_TIMEOUT

from techrevati.agent.behaviours.mcp.faults import (
    CallInDoubt,
    McpUnavailable,
    is_loss,
    is_session_gone,
    is_timeout,
    is_unreached,
    text_of,
)


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (MCPError(CONNECTION_CLOSED, "Connection closed"), True),
        (anyio.ClosedResourceError(), True),
        (MCPError(INVALID_REQUEST, "Session terminated"), True),
        (MCPError(REQUEST_TIMEOUT, "timed out"), False),
        (MCPError(INTERNAL_ERROR, "no"), False),
    ],
)
def test_12_6_a_refusal_is_no_loss(error: Exception, loss: bool) -> None:
    assert is_loss(error) is loss
    assert is_timeout(error) is (isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT)


@pytest.mark.parametrize(
    "text",
    ["Session terminated", "Session not found", "session ID expired", "Bad Request: No valid session ID provided",
     "Unknown session"],
)  # fmt: skip
def test_12_6_servers_say_in_their_own_words_that_they_do_not_know_us(text: str) -> None:
    assert is_session_gone(MCPError(INVALID_REQUEST, text))


@pytest.mark.parametrize("text", ["tool not found", "the session is long", "obsession terminated"])
def test_12_6_other_words_are_no_such_thing(text: str) -> None:
    assert not is_session_gone(MCPError(INVALID_REQUEST, text))


def test_12_6_only_a_connection_that_could_not_be_opened_was_certainly_not_used() -> None:
    refused, broken = httpx2.ConnectError("refused"), httpx2.ReadError("reset")
    assert is_unreached(refused)
    assert is_unreached(BaseExceptionGroup("g", [BaseExceptionGroup("h", [refused])]))
    assert not is_unreached(BaseExceptionGroup("g", [refused, broken]))
    assert not is_unreached(None)
    assert text_of(BaseExceptionGroup("g", [refused, ValueError()])) == "refused; ValueError"


@pytest.mark.parametrize("error", [McpUnavailable("desk", "why"), CallInDoubt("desk", "pay")])
def test_12_6_errors_survive_a_queue(error: Exception) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
