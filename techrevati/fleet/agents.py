"""What a fleet declares about its agents."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from techrevati.fleet.cards import Card
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
    winds_up: bool = False

    @property
    def card(self) -> Card:
        return Card(self.name, self.role, self.handoffs, self.version, self.fallback, self.max_attempts, self.winds_up)
