"""What can go wrong on the way to an MCP server, and what each fault says of the call that met it."""

import re

import httpx2
from mcp.shared.exceptions import MCPError
from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

from techrevati.agent.errors import AgentError

_NO_SESSION = re.compile(r"\bsession( id)? (not found|terminated|expired|unknown)|\b(no valid|unknown) session", re.I)


class McpUnavailable(AgentError):
    """An MCP server cannot be reached."""

    def __init__(self, server: str, cause: str) -> None:
        super().__init__(server, cause)
        self.server, self.cause = server, cause

    def __str__(self) -> str:
        return f"MCP server {self.server!r} cannot be reached ({self.cause}); fix: start it, or check its address"


class CallInDoubt(AgentError):
    """The connection broke while a call was under way: it may have taken effect."""

    def __init__(self, server: str, tool: str) -> None:
        super().__init__(server, tool)
        self.server, self.tool = server, tool

    def __str__(self) -> str:
        return (
            f"the connection to MCP server {self.server!r} broke while {self.tool!r} ran: it may or may not have "
            "taken effect; find out before calling it again"
        )


def is_loss(error: Exception) -> bool:
    """Tell whether an error of a call means that the connection is gone."""
    return not isinstance(error, MCPError) or error.code == CONNECTION_CLOSED or is_session_gone(error)


def is_timeout(error: Exception) -> bool:
    """Tell whether a request had no answer in time, which leaves the connection as it is."""
    return isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT


def is_session_gone(error: Exception) -> bool:
    """The server has restarted and does not know our session: it refused before doing anything.

    The protocol says HTTP 404; which error the body then holds, each server decides for itself.
    """
    return isinstance(error, MCPError) and _NO_SESSION.search(error.message) is not None


def _leaves(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [] if error is None else [error]


def is_unreached(cause: BaseException | None) -> bool:
    """Tell whether a connection ended because none could be opened: nothing was sent then."""
    leaves = _leaves(cause)
    return bool(leaves) and all(isinstance(leaf, httpx2.ConnectError | httpx2.ConnectTimeout) for leaf in leaves)


def text_of(error: BaseException | None) -> str:
    """Give what went wrong, of every error in a group."""
    return "; ".join(str(leaf) or type(leaf).__name__ for leaf in _leaves(error))
