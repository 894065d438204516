"""Which MCP server, how it is reached, and how patient we are with it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import anyio
import httpx2
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

Streams = AbstractAsyncContextManager[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long things may take, in seconds."""

    connect: float = 20.0
    """Reaching the server and agreeing on a protocol; also how long a call waits for a lost one to come back."""
    call: float = 60.0
    """One tool call."""
    backoff: float = 0.2
    """Before the second attempt to reach it again; doubled each time."""
    most_backoff: float = 15.0
    refresh: float | None = None
    """Between looks at its list of tools; None looks when the server says that it changed, and on reconnecting."""


class McpServer(Protocol):
    """Where an MCP server is."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    def streams(self, on_end: Callable[[], None]) -> Streams:
        """Reach the server; `on_end` is called when it goes away by itself, if that can be seen."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioServer:
    """A server that is a program of ours: started with the connection, stopped with it."""

    kind: ClassVar[str] = "stdio"

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """On top of PATH, HOME and the like; nothing else of our environment is handed on."""
    cwd: str | Path | None = None

    @asynccontextmanager
    async def streams(self, on_end: Callable[[], None]) -> AsyncIterator[Any]:
        program = StdioServerParameters(command=self.command, args=list(self.args), env=dict(self.env), cwd=self.cwd)
        async with stdio_client(program) as (read, write):
            send, receive = anyio.create_memory_object_stream[Any](0)

            async def forward() -> None:
                try:
                    async with send:
                        async for message in read:
                            await send.send(message)
                except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                    return  # our own side hung up
                on_end()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(forward)
                try:
                    yield receive, write
                finally:
                    receive.close()
                    tasks.cancel_scope.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """A server at a URL, spoken to over streamable HTTP.

    `http` makes the client to use, for certificates, proxies or OAuth; `headers` are sent with every request.
    """

    kind: ClassVar[str] = "streamable_http"

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    http: Callable[[], httpx2.AsyncClient] | None = None

    @asynccontextmanager
    async def streams(self, on_end: Callable[[], None]) -> AsyncIterator[Any]:
        # A response stream may rest while a tool works, hence the long read; calls have their own limit.
        patient = httpx2.Timeout(30.0, read=300.0)
        client = self.http() if self.http is not None else httpx2.AsyncClient(timeout=patient)
        client.headers.update(dict(self.headers))
        async with client, streamable_http_client(self.url, http_client=client) as found:
            yield found
