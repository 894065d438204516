"""Fleet: what an author declares, and the Celery app that serves it.

fleet = Fleet("newsroom")
@fleet.agent("writer", handoffs=("editor",))
async def write(turn): ...
app = fleet.celery_for("writer")        # celery -A workers.writer worker
"""

import inspect
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from techrevati.fleet.agents import Agent, AgentFunction, Meter
from techrevati.fleet.failures import Retry
from techrevati.fleet.models import ModelClient, Models
from techrevati.fleet.providers import known_providers
from techrevati.fleet.settings import Settings, load_settings
from techrevati.fleet.settings import seconds as as_seconds
from techrevati.runtime.errors import TechrevatiError
from techrevati.runtime.orchestrator import AgentSession
from techrevati.store.keys import check_role

if TYPE_CHECKING:
    from techrevati.fleet.aclient import AsyncClient
    from techrevati.fleet.celery_app import FleetCelery
    from techrevati.fleet.client import Client

F = TypeVar("F", bound=AgentFunction)


class AlreadyDeclared(TechrevatiError):
    """Two agents of one fleet have one name."""

    def __init__(self, name: str, fleet: str) -> None:
        super().__init__(name, fleet)
        self.name, self.fleet = name, fleet

    def __str__(self) -> str:
        return f"agent {self.name!r} is declared twice in fleet {self.fleet!r}; fix: give one another name="


class NoSuchRole(TechrevatiError):
    """A worker was asked for a role that no agent of the fleet has."""

    def __init__(self, role: str, fleet: str, known: Sequence[str]) -> None:
        super().__init__(role, fleet, list(known))
        self.role, self.fleet, self.known = role, fleet, list(known)

    def __str__(self) -> str:
        return f"fleet {self.fleet!r} has no role {self.role!r}; it has: {', '.join(self.known) or 'none'}"


class Fleet:
    """The agents of one application and how they are served.

    Nothing is connected and no environment is read before a worker, a client or `settings` is asked for.
    """

    def __init__(self, name: str, *, settings: Settings | None = None) -> None:
        self.name = check_role(name, "fleet")
        self.agents: dict[str, Agent] = {}
        self.models = known_providers(Models())
        self._settings = settings
        self._apps: dict[str | None, FleetCelery] = {}

    @property
    def settings(self) -> Settings:
        """The settings given, or else the environment's, read once."""
        if self._settings is None:
            self._settings = load_settings()
        return self._settings

    @property
    def roles(self) -> list[str]:
        return sorted({agent.role for agent in self.agents.values()})

    def agent(
        self,
        role: str,
        *,
        name: str | None = None,
        handoffs: Sequence[str] = (),
        version: str = "1",
        retry: Retry | None = None,
        timeout: float | timedelta = 600.0,
        max_attempts: int = 3,
        meter: Meter = "turns",
        fallback: str | None = None,
        session: AgentSession | None = None,
    ) -> Callable[[F], F]:
        """Declare a function as the agent of a role; it is called with a `Turn` and returns an `Outcome`.

        Args:
            role: the pool it runs in, and its name unless `name` is given.
            handoffs: agents it may hand a run to.
            retry: how a turn that raises is tried again.
            timeout: seconds one turn may take.
            max_attempts: workers that may die in one turn before the run is a dead letter.
            meter: what a turn costs its tenant's fair share: one turn, its seconds, or its tokens / 1000.
            fallback: agent that gets its handoffs while its own pool has no worker.
            session: permissions, guardrails, policies and limits of `turn.session`.

        Raises:
            BadName, AlreadyDeclared, ValueError: refused before anything is registered.
        """
        label = check_role(name or role, "agent")
        check_role(role)
        for target in (*handoffs, *([fallback] if fallback else [])):
            check_role(target, "handoff target")
        if label in self.agents:
            raise AlreadyDeclared(label, self.name)
        if max_attempts < 1:
            raise ValueError(f"max_attempts={max_attempts} of agent {label!r} is refused: give 1 or more")
        limit = as_seconds(timeout, "timeout")

        def register(function: F) -> F:
            self.agents[label] = Agent(
                name=label,
                role=role,
                function=function,
                is_async=inspect.iscoroutinefunction(function),
                handoffs=tuple(handoffs),
                version=version,
                retry=retry or Retry(),
                timeout=limit,
                max_attempts=max_attempts,
                meter=meter,
                fallback=fallback,
                session=session,
            )
            return function

        return register

    def model(self, name: str, client: ModelClient) -> None:
        """Let `turn.model(name, …)` call this client."""
        self.models.register(name, client)

    def client(self) -> "Client":
        """Give a client that knows this fleet's agents; it connects on first use."""
        from techrevati.fleet.client import Client

        return Client(fleet=self.name, settings=self.settings, cards=[a.card for a in self.agents.values()])

    def async_client(self) -> "AsyncClient":
        """Give the client's twin for an event loop."""
        from techrevati.fleet.aclient import AsyncClient

        return AsyncClient(fleet=self.name, settings=self.settings, cards=[a.card for a in self.agents.values()])

    @property
    def celery(self) -> "FleetCelery":
        """The Celery app that serves the fleet's only role, or just sends where there are several."""
        return self.celery_for(self.roles[0] if len(self.roles) == 1 else None)

    def celery_for(self, role: str | None, *, seam: Callable[[str], None] | None = None) -> "FleetCelery":
        """Build the Celery app whose workers serve `role`; plain ``celery -A module worker`` runs it.

        Raises:
            NoSuchRole: no agent has it.
        """
        if role is not None and role not in self.roles:
            raise NoSuchRole(role, self.name, self.roles)
        if role not in self._apps:
            from techrevati.fleet.serving import make_app

            self._apps[role] = make_app(self, role, seam)
        return self._apps[role]

    def __repr__(self) -> str:
        return f"Fleet({self.name!r}, agents={sorted(self.agents)!r})"


def is_fleet(value: Any) -> bool:
    return isinstance(value, Fleet)
