"""A real MCP server, run as a process: ``python server.py stdio`` or ``python server.py http PORT``.

It notes every call that it begins in the file ``$NOTES``, so that a test can count what really happened.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Resolve, Sample
from mcp.types import (
    CallToolResult,
    CreateMessageResult,
    EmbeddedResource,
    ImageContent,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
)

server = MCPServer("desk")


def note(text: str) -> None:
    if path := os.environ.get("NOTES"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text + "\n")


@server.tool(title="Add up")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)


@server.tool(name="files/read.all")
def read_all() -> str:
    """Carry a name that providers do not take."""
    return "all"


@server.tool()
async def count(ctx: Context, to: int) -> str:
    """Tell how far it is."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to, f"{number} of {to}")
    return "done"


@server.tool()
async def die(ctx: Context) -> str:
    """Die in the middle of the call."""
    note("die")
    os._exit(7)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def die_once(flag: str) -> str:
    """Die in the first call, answer in the second."""
    note("die_once")
    if not Path(flag).exists():
        Path(flag).write_text("x", "utf-8")
        os._exit(7)
    return f"survived as {os.getpid()}"


@server.tool()
async def who() -> int:
    """Give the process id."""
    note("who")
    return os.getpid()


@server.tool()
async def slow(seconds: float) -> str:
    """Take long."""
    note("slow")
    await asyncio.sleep(seconds)
    return "at last"


@server.tool()
def picture() -> CallToolResult:
    """Give text, a picture and something for the eye."""
    shown = TextResourceContents(uri="ui://desk/card", mime_type="text/html", text="<b>card</b>")
    return CallToolResult(
        content=[
            TextContent(type="text", text="a card"),
            ImageContent(type="image", data="AAAA", mime_type="image/png"),
            EmbeddedResource(type="resource", resource=shown),
        ]
    )


@server.tool(meta={"ui": {"resourceUri": "ui://desk/panel"}})
def panel() -> str:
    """Have its looks as a resource of the server."""
    return "see panel"


@server.resource("ui://desk/panel", mime_type="text/html")
def panel_page() -> str:
    return "<p>panel</p>"


def put(question: str) -> Sample:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=question))
    return Sample([message], max_tokens=50, system_prompt="Be short.")


@server.tool()
async def ask(question: str, answer: Annotated[CreateMessageResult, Resolve(put)]) -> str:
    """Ask the client's model."""
    return f"{answer.model} says {answer.content.text if isinstance(answer.content, TextContent) else '?'}"


@server.tool()
def seen(ctx: Context) -> dict[str, str | None]:
    """Tell what came with the request."""
    meta = ctx.request_context.meta or {}
    key = meta.get("techrevati/idempotency-key")
    return {"key": str(key) if key else None, "authorization": (ctx.headers or {}).get("authorization")}


@server.tool()
async def learn(ctx: Context, name: str) -> str:
    """Offer one more tool from now on."""

    def learned() -> str:
        return name

    server.add_tool(learned, name=name)
    await ctx.notify_tools_changed()
    return "learned"


@server.prompt(name="Daily Report", description="How the daily report is written.")
def daily() -> str:
    return "Write the report in three lines."


@server.prompt(name="letter")
def letter(to: str) -> str:
    """Need an argument."""
    return f"Write to {to}."


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", port=int(sys.argv[2]))
