"""What a fleet declares about its agents, and what every process may know of them."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from techrevati.fleet.failures import Retry
from techrevati.fleet.turn import Turn
from techrevati.runtime.orchestrator import AgentSession

AgentFunction = Callable[[Turn], Awaitable[Any]] | Callable[[Any], Any]
Meter = Literal["turns", "seconds", "tokens"]


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent: a function, the pool it runs in, and how it is to be treated."""

    name: str
    role: str
    function: AgentFunction
    is_async: bool
    handoffs: tuple[str, ...] = ()
    version: str = "1"
    retry: Retry = field(default_factory=Retry)
    timeout: float = 600.0
    max_attempts: int = 3
    meter: Meter = "turns"
    fallback: str | None = None
    session: AgentSession | None = None
    gate: str | None = None

    @property
    def card(self) -> "Card":
        return Card(self.name, self.role, self.handoffs, self.version, self.fallback, self.max_attempts)


@dataclass(frozen=True, slots=True)
class Card:
    """What other processes know of an agent; kept as JSON in ``roles:{fleet}``."""

    name: str
    role: str
    handoffs: tuple[str, ...] = ()
    version: str = "1"
    fallback: str | None = None
    max_attempts: int = 3

    def to_json(self) -> str:
        return json.dumps(
            {
                "role": self.role,
                "handoffs": self.handoffs,
                "version": self.version,
                "fallback": self.fallback,
                "max_attempts": self.max_attempts,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, name: str, text: str) -> "Card":
        body: Mapping[str, Any] = json.loads(text)
        return cls(
            name,
            body["role"],
            tuple(body.get("handoffs", ())),
            body.get("version", "1"),
            body.get("fallback"),
            body.get("max_attempts", 3),
        )
