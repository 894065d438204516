"""One MCP server, kept reachable.

    call ──▶ connected? ──▶ client ──▶ server
               │ no: wait              │ gone
               ▼                       ▼
             owner task: connect ─▶ list tools ─▶ serve until lost ─▶ back off ─▶ again

One task owns the client from entering to leaving it (its cancel scopes demand that).  A call that was under
way when the connection broke is made again only if the server calls the tool repeatable, or if the request
certainly did not get there; otherwise the model is told that it may have taken effect.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

import anyio
from mcp.client import Client
from mcp.client.session import SamplingFnT
from mcp.client.subscriptions import ListenNotSupportedError
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, GetPromptResult, Prompt, Tool, ToolListChangedNotification

from techrevati.agent.behaviours.mcp.faults import (
    CallInDoubt,
    McpUnavailable,
    is_loss,
    is_session_gone,
    is_timeout,
    is_unreached,
    text_of,
)
from techrevati.agent.behaviours.mcp.names import tool_ids
from techrevati.agent.behaviours.mcp.servers import McpServer, Patience, Streams
from techrevati.agent.errors import AgentError

log = logging.getLogger(__name__)

OnProgress = Callable[[float, float | None, str | None], None]
IDEMPOTENCY_KEY = "techrevati/idempotency-key"
"""In a call's ``_meta``: the same for every attempt of one tool call."""
_CLOSING = 10.0  # s; a program has 4 of them to end by itself
_LISTEN_AGAIN = 1.0  # s
_MOST_PAGES = 100


class McpConnection:
    """A connection that comes back.  ``async with`` it; its tools are those of the last good look.

    Args:
        sampling: Answers the server's own model requests (see `sampling.answer_with`); None refuses them.
        protocol: ``auto`` agrees on the newest version both speak, ``legacy`` on one before 2026-07-28.
    """

    def __init__(
        self,
        server: McpServer,
        *,
        patience: Patience | None = None,
        sampling: SamplingFnT | None = None,
        protocol: str = "auto",
    ) -> None:
        self.server, self.patience = server, patience or Patience()
        self._sampling, self._protocol = sampling, protocol
        self._client: Client | None = None
        self._up, self._wanted, self._stale, self._closing = (asyncio.Event() for _ in range(4))
        self._lost, self._down = asyncio.Event(), asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._in_flight = 0
        self._cause: BaseException | None = None
        self.tools: Mapping[str, Tool] = MappingProxyType({})
        """The server's tools by our id: replaced as a whole, never changed."""
        self.connects = 0
        """How often the server was reached."""

    @property
    def is_connected(self) -> bool:
        return self._client is not None

    async def __aenter__(self) -> Self:
        """Reach the server and list its tools.

        Raises:
            McpUnavailable: it does not answer in time.
            DuplicateTool: two of its tools would have one id.
        """
        self._owner = asyncio.create_task(self._own(), name=f"mcp {self.server.name}")
        try:
            await self._connected(give_up_on_error=True)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        for event in (self._lost, self._wanted, self._stale):
            event.set()
        if self._owner is not None:
            done, _pending = await asyncio.wait([self._owner], timeout=_CLOSING)
            if not done:  # it waits for a server that hangs
                self._owner.cancel()
                await asyncio.wait([self._owner])

    async def refresh(self) -> Mapping[str, Tool]:
        """Look at the server's tools now, and give them; what runs already keeps the ones it has.

        Raises:
            McpUnavailable, DuplicateTool
        """
        client = await self._connected()
        try:
            self.tools = await self._list(client)
        except MCPError as error:
            raise McpUnavailable(self.server.name, error.message) from error
        return self.tools

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
        repeatable: bool = False,
        idempotency_key: str | None = None,
    ) -> CallToolResult:
        """Call a tool by the server's own name for it, waiting for a lost server to come back.

        The idempotency key, if there is one, travels in the request's ``_meta``.

        Raises:
            McpUnavailable: it does not come back in time; the call was not made.
            CallInDoubt: it went away during the call.
            MCPError: it refused the call, or did not answer in time.
        """

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            if on_progress is not None:
                on_progress(progress, total, message)

        limit = self.patience.call if timeout is None else timeout
        meta: Any = None if idempotency_key is None else {IDEMPOTENCY_KEY: idempotency_key}
        for is_last in (False, True):
            client = await self._connected()
            lost, down = self._lost, self._down
            self._in_flight += 1
            try:
                return await client.call_tool(tool, dict(arguments), limit, tell, meta=meta)
            except (MCPError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
                if not is_loss(error):
                    if is_timeout(error):
                        self._stale.set()  # slow, or hung?  The owner looks whether it still lists its tools
                    raise
                alone = self._in_flight == 1 and not lost.is_set()
                lost.set()
                await down.wait()
                # Only one call was under way, so it is the one that could not be delivered.
                unsent = is_session_gone(error) or (alone and is_unreached(self._cause))
                if is_last or not (unsent or repeatable):
                    if unsent:
                        raise McpUnavailable(self.server.name, str(error) or "gone") from error
                    raise CallInDoubt(self.server.name, tool) from error
            finally:
                self._in_flight -= 1
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def read_resource(self, uri: str) -> Any:
        """Read a resource of the server, as MCP gives it."""
        return await (await self._connected()).read_resource(uri)

    async def prompts(self) -> list[Prompt]:
        """Give the server's prompts.  Raises McpUnavailable, MCPError."""
        client = await self._connected()
        found: list[Prompt] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_prompts(cursor=cursor)
            found += page.prompts
            if (cursor := page.next_cursor) is None:
                break
        return found

    async def prompt(self, name: str) -> GetPromptResult:
        """Give the messages of a prompt that needs no arguments.  Raises McpUnavailable, MCPError."""
        return await (await self._connected()).get_prompt(name)

    async def _connected(self, *, give_up_on_error: bool = False) -> Client:
        deadline = time.monotonic() + self.patience.connect
        while (client := self._client) is None or self._lost.is_set():
            self._wanted.set()
            left = deadline - time.monotonic()
            if self._closing.is_set() or left <= 0 or (give_up_on_error and self._cause is not None):
                if give_up_on_error and isinstance(self._cause, AgentError):
                    raise self._cause
                cause = "closed" if self._closing.is_set() else text_of(self._cause) or "no answer in time"
                raise McpUnavailable(self.server.name, cause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, 0.05)):
                    await self._up.wait()
        return client

    async def _own(self) -> None:
        failures = 0
        while not self._closing.is_set():
            before = self.connects
            try:
                await self._serve()
                self._cause = None
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  whatever it was, the server is gone
                self._cause = error
                level = logging.DEBUG if failures else logging.WARNING  # an outage is one warning, not hundreds
                log.log(level, "MCP server %s is gone: %s", self.server.name, text_of(error))
            finally:
                self._client = None
                self._up.clear()
                self._down.set()
            failures = 1 if self.connects > before else failures + 1
            if not self._closing.is_set():
                await self._rest(failures)

    async def _rest(self, failures: int) -> None:
        """Wait before the next attempt; a call that waits cuts a long rest short, not a first one."""
        wait = min(self.patience.most_backoff, self.patience.backoff * 2 ** min(failures - 1, 16))
        self._wanted.clear()
        await asyncio.sleep(min(wait, self.patience.backoff))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait - self.patience.backoff)):
                await self._wanted.wait()

    async def _serve(self) -> None:
        """Reach the server and stay until it is lost or we close."""
        self._lost = lost = asyncio.Event()
        self._down = asyncio.Event()
        streams: Streams = self.server.streams(lost.set)
        async with contextlib.AsyncExitStack() as stack:
            client = Client(
                streams,
                mode=self._protocol,
                read_timeout_seconds=self.patience.connect,
                sampling_callback=self._sampling,
                message_handler=self._hear,
                cache=None,
            )
            async with asyncio.timeout(self.patience.connect):
                await stack.enter_async_context(client)
                self.tools = await self._list(client)
            self.connects += 1
            self._client, self._cause = client, None
            self._up.set()
            listening = asyncio.create_task(self._listen(client))
            try:
                await self._until_lost(client, lost)
            finally:
                self._client = None
                self._up.clear()
                listening.cancel()
                await asyncio.wait([listening])

    async def _until_lost(self, client: Client, lost: asyncio.Event) -> None:
        gone = asyncio.create_task(lost.wait())
        try:
            while not (lost.is_set() or self._closing.is_set()):
                stale = asyncio.create_task(self._stale.wait())
                await asyncio.wait([gone, stale], timeout=self.patience.refresh, return_when=asyncio.FIRST_COMPLETED)
                stale.cancel()
                if lost.is_set() or self._closing.is_set():
                    return
                self._stale.clear()
                try:
                    async with asyncio.timeout(self.patience.connect):  # all pages of it, as at the first look
                        self.tools = await self._list(client)
                except (MCPError, AgentError, TimeoutError) as error:  # the last good look stands
                    log.warning("MCP server %s: its tools cannot be listed: %s", self.server.name, text_of(error))
                    if isinstance(error, TimeoutError) or (
                        isinstance(error, MCPError) and (is_timeout(error) or is_loss(error))
                    ):
                        lost.set()
        finally:
            gone.cancel()

    async def _list(self, client: Client) -> Mapping[str, Tool]:
        found: list[Tool] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            if (cursor := page.next_cursor) is None:
                break
        by_name = {tool.name: tool for tool in found}
        ids = tool_ids(self.server.name, [tool.name for tool in found])
        return MappingProxyType({name: by_name[tool] for name, tool in sorted(ids.items())})

    async def _hear(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._stale.set()

    async def _listen(self, client: Client) -> None:
        """Hear of changed tools where the protocol asks for a subscription; older ones tell unasked.

        A subscription that ends has the owner look at the tools: if the server is gone, that shows it.
        """
        while True:
            heard = False
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    heard = True
                    self._stale.set()  # what changed since the first look was told to nobody
                    async for _ in changes:
                        self._stale.set()
            except ListenNotSupportedError:
                return
            except Exception as error:  # noqa: BLE001  the stream is a convenience; calls tell whether the server lives
                log.debug("MCP server %s: no news of its tools: %s", self.server.name, error)
            if not heard:
                return
            self._stale.set()
            await asyncio.sleep(_LISTEN_AGAIN)
