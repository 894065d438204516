"""A server's prompts as skills: what it wrote for a task, to be taken up when the task comes.

prompts/list ──those that need no arguments──▶ skill ``<server>-<prompt>`` ──taken up──▶ its messages as text
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from types import MappingProxyType

from mcp.shared.exceptions import MCPError
from mcp.types import METHOD_NOT_FOUND, GetPromptResult, Prompt, TextContent
from pydantic import ValidationError

from techrevati.agent.behaviours.mcp.connection import McpConnection
from techrevati.agent.behaviours.mcp.faults import McpUnavailable
from techrevati.agent.behaviours.skills.library import EmbeddedSkill, Shelf, Skill
from techrevati.agent.behaviours.skills.manifest import Manifest

log = logging.getLogger(__name__)
_LONGEST = 1024
_PATIENCE = 5.0  # s that a step may be held up by a look


def prompt_skill_name(server: str, prompt: str) -> str:
    """Give a prompt's name as a skill: lower-case words joined by single hyphens, up to 64 characters."""
    words = re.findall(r"[a-z0-9]+", f"{server} {prompt}".lower())
    return "-".join(words)[:64].strip("-")


def instructions(found: GetPromptResult) -> str:
    """Give the text of a prompt's messages; what is no text is left out."""
    texts = [message.content.text for message in found.messages if isinstance(message.content, TextContent)]
    return "\n\n".join(texts)


class McpPrompts:
    """The prompts of one server as a source of skills.

    What was seen stands for `keep` seconds, and for as long as the server is away: no step waits for that.
    """

    def __init__(
        self, connection: McpConnection, *, keep: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection, self._keep, self._clock = connection, keep, clock
        self._shelf, self._seen_at = Shelf(), float("-inf")
        self._lock = asyncio.Lock()

    async def look(self) -> Shelf:
        """Give the prompts as skills."""
        async with self._lock:
            if self._connection.is_connected and self._clock() - self._seen_at >= self._keep:
                try:
                    async with asyncio.timeout(_PATIENCE):
                        self._shelf = Shelf(MappingProxyType(await self._read()))
                except (MCPError, McpUnavailable, ValidationError, TimeoutError) as error:
                    log.warning("MCP server %s: its prompts cannot be read: %s", self._connection.server.name, error)
                self._seen_at = self._clock()
            return self._shelf

    async def _read(self) -> dict[str, Skill]:
        skills: dict[str, Skill] = {}
        for prompt in await self._prompts():
            name = prompt_skill_name(self._connection.server.name, prompt.name)
            if name in skills or any(argument.required for argument in prompt.arguments or ()):
                continue  # a skill is taken up by name alone
            text = instructions(await self._connection.prompt(prompt.name))
            about = (prompt.description or prompt.title or f"The prompt {prompt.name}.").strip()
            skills[name] = EmbeddedSkill(Manifest(name, about[:_LONGEST]), text)
        return skills

    async def _prompts(self) -> list[Prompt]:
        try:
            return await self._connection.prompts()
        except MCPError as error:
            if error.code == METHOD_NOT_FOUND:  # it has none
                return []
            raise
