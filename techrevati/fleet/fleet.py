"""Fleet: what an author declares, and the Celery app that serves it.

fleet = Fleet("newsroom")
@fleet.agent("writer", handoffs=("editor",))
async def write(turn): ...
app = fleet.celery_for("writer")        # celery -A workers.writer worker
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from techrevati.fleet.agents import Agent, AgentFunction, Meter
from techrevati.fleet.budgets import BudgetSpec, Spending, limits_of
from techrevati.fleet.checkpoints import CheckpointSpec
from techrevati.fleet.failures import Retry
from techrevati.fleet.models import Costs, ModelClient, Models
from techrevati.fleet.providers import known_providers
from techrevati.fleet.settings import Settings, load_settings
from techrevati.fleet.settings import seconds as as_seconds
from techrevati.fleet.sinks import SinkSpec
from techrevati.runtime.errors import TechrevatiError
from techrevati.runtime.orchestrator import AgentSession
from techrevati.store.budgets import Limits, OnStoreError
from techrevati.store.gates import BreakerSpec, BucketSpec, GateSpec, UnknownBucket
from techrevati.store.keys import CALL_PREFIX, check_role
from techrevati.store.saver import Durability, KeyRing

if TYPE_CHECKING:
    from techrevati.agent.definition import AgentDefinition
    from techrevati.agent.tools import Tool
    from techrevati.fleet.aclient import AsyncClient
    from techrevati.fleet.celery.app import FleetCelery
    from techrevati.fleet.client import Client

F = TypeVar("F", bound=AgentFunction)


class AlreadyDeclared(TechrevatiError):
    """Two agents, or two gates, of one fleet have one name."""

    def __init__(self, name: str, fleet: str, what: str = "agent") -> None:
        super().__init__(name, fleet, what)
        self.name, self.fleet, self.what = name, fleet, what

    def __str__(self) -> str:
        if not self.what:
            return f"{self.name} of fleet {self.fleet!r} is declared twice; fix: say all of it at once"
        return f"{self.what} {self.name!r} is declared twice in fleet {self.fleet!r}; fix: give one another name"


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
        self.tools: dict[str, Agent] = {}
        self._pooled: dict[str, Tool] = {}
        self.models = known_providers(Models())
        self.gates: dict[str, GateSpec] = {}
        self.costs: dict[str, Costs] = {}
        self.spending: BudgetSpec | None = None
        self.saving: CheckpointSpec | None = None
        self.telling: SinkSpec | None = None
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
        return sorted({agent.role for agent in self.served.values()})

    @property
    def served(self) -> dict[str, Agent]:
        """All that workers serve, by name: the agents, and the tools that have a role."""
        return {**self.agents, **self.tools}

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
        gate: str | None = None,
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
            gate: the gate that calls of `turn.session` go through; by default the fleet's only one, if it has but one.

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
                gate=gate,
            )
            return function

        return register

    def define(self, definition: "AgentDefinition", *, role: str | None = None, **options: Any) -> None:
        """Declare an agent by its definition; each turn of a run is one step of the agent loop.

        Its name is the definition's id, and so is its role unless one is given; `options` are those of `agent`.

        Raises:
            WiringError, BadToolSchema, BadName, AlreadyDeclared: refused before anything is registered.
        """
        from techrevati.agent.building import build
        from techrevati.agent.tools import role_of
        from techrevati.fleet.define import agent_function, winds_up

        agent = build(definition)
        pooled = [tool for tool in agent.tools.values() if role_of(tool) is not None]
        for tool in pooled:
            self._check_tool(tool)
        self.agent(role or definition.id, name=definition.id, **options)(agent_function(agent))
        self.agents[definition.id] = replace(self.agents[definition.id], winds_up=winds_up(agent))
        for tool in pooled:
            self.tool(tool)

    def tool(self, tool: "Tool") -> None:
        """Let the workers of a tool's role carry out its calls, as `define` does for the tools of its agent.

        Raises:
            BadName: it has no role, or one that can be none.
            AlreadyDeclared: another tool has its id.
        """
        from techrevati.fleet.pool_calls import agent_of

        self._check_tool(tool)
        served = agent_of(tool)
        self.tools[served.name], self._pooled[served.name] = served, tool

    def _check_tool(self, tool: "Tool") -> None:
        check_role(getattr(tool, "role", None) or "", f"role of tool {tool.descriptor.id!r}")
        if self._pooled.get(f"{CALL_PREFIX}{tool.descriptor.id}", tool) is not tool:
            raise AlreadyDeclared(tool.descriptor.id, self.name, "tool")

    def model(self, name: str, client: ModelClient) -> None:
        """Let `turn.model(name, …)` call this client."""
        self.models.register(name, client)

    def gate(
        self,
        name: str,
        *,
        rpm: float | None = None,
        input_tpm: float | None = None,
        output_tpm: float | None = None,
        buckets: Mapping[str, float | BucketSpec] | None = None,
        concurrency: int | None = None,
        adaptive: bool = False,
        failure_threshold: int | None = None,
        breaker: BreakerSpec | None = None,
        shares: Mapping[str, float] | None = None,
        revision: int = 0,
        on_store_error: Literal["local", "fail_open", "fail_closed"] = "local",
        provider_limits: Literal["lower", "follow", "ignore"] = "lower",
        costs: Costs | None = None,
    ) -> None:
        """Declare what the whole fleet agrees on about one dependency; `turn.model(name, …)` goes through it.

        A `RoutedModel` goes through the gates of its models, not through one of its own name.

        Args:
            rpm, input_tpm, output_tpm: requests and tokens a minute.
            buckets: more of them, a minute or as a `BucketSpec`; ``tpm`` counts input and output together.
            concurrency: calls at once; `adaptive` finds how many are good, up to that.
            failure_threshold: failures in a row that open the breaker; `breaker` says all of it.
            shares: tenants' weights where they wait for each other.
            revision: the higher wins where workers of two releases declare different things.
            on_store_error: what holds while Redis is away: each process by itself, no limit, or no call.
            provider_limits: what becomes of the limits that a provider's answers tell of: "lower", they hold where
                they are lower than these; "follow", they hold; "ignore".
            costs: what each call costs `buckets`: numbers, or functions of the `ModelRequest`; without one, and
                without ``turn.model(costs=…)``, a bucket of your own is not drawn on.

        Raises:
            BadGate, BadName, AlreadyDeclared, UnknownBucket: refused before anything is registered.
        """
        if name in self.gates:
            raise AlreadyDeclared(name, self.name, "gate")
        limits = {"rpm": rpm, "input_tpm": input_tpm, "output_tpm": output_tpm, **(buckets or {})}
        spec = GateSpec.make(
            name,
            concurrency=concurrency,
            adaptive=adaptive,
            failure_threshold=failure_threshold,
            breaker=breaker,
            shares=dict(shares or {}),
            revision=revision,
            on_store_error=on_store_error,
            provider_limits=provider_limits,
            **{bucket: limit for bucket, limit in limits.items() if isinstance(limit, int | float)},
        )
        own = tuple(limit for limit in limits.values() if isinstance(limit, BucketSpec))
        spec = replace(spec, buckets=(*spec.buckets, *own)) if own else spec
        if unknown := [bucket for bucket in costs or {} if spec.bucket(bucket) is None]:
            raise UnknownBucket(name, unknown[0], tuple(bucket.name for bucket in spec.buckets))
        self.gates[name] = spec
        if costs:
            self.costs[name] = dict(costs)

    def budget(
        self,
        *,
        run: Spending | None = None,
        thread: Spending | None = None,
        project: Spending | None = None,
        tenant: Spending | None = None,
        thresholds: Sequence[int] = (50, 80, 100),
        on_store_error: Literal["fail_closed", "fail_open", "local"] = "fail_closed",
    ) -> None:
        """Declare what every run, thread, project and tenant may spend on models.

        Each is dollars in all, dollars by window (``{"day": 5, "month": 100}``), or `Limit`s of `techrevati.store`;
        an operator's own setting wins.  At each of the `thresholds`, in percent, an event is told once in a window.

        Raises:
            BadBudget, AlreadyDeclared: refused before anything is registered.
        """
        if self.spending is not None:
            raise AlreadyDeclared("the budget", self.name, "")
        limits = Limits(
            run=limits_of(run),
            thread=limits_of(thread),
            project=limits_of(project),
            tenant=limits_of(tenant),
            thresholds=tuple(thresholds),
        )
        self.spending = BudgetSpec(limits, OnStoreError(on_store_error))

    def checkpoints(
        self,
        *,
        ttl: float | timedelta | None = timedelta(days=30),
        keep: int | None = None,
        durability: Literal["memory", "fsync", "replicated"] = "memory",
        encryption: KeyRing | None = None,
    ) -> None:
        """Keep what `turn.session.arun_turn(…, idempotency_key=…)` returned in Redis, for any worker to replay.

        Each turn of a session then makes a checkpoint of its thread, in a round trip that the worker's loop waits for.

        Args:
            ttl: how long a thread is kept without use; `keep`: how many of its checkpoints.  None for ever, for all.
            durability: what a checkpoint has to survive before it counts.
            encryption: keys to seal checkpoints with.

        Raises:
            AlreadyDeclared, ValueError: refused before anything is registered.
        """
        if self.saving is not None:
            raise AlreadyDeclared("keeping checkpoints", self.name, "")
        kept = None if ttl is None else as_seconds(ttl, "ttl")
        self.saving = CheckpointSpec(kept, keep, Durability(durability), encryption)

    def sinks(
        self,
        *,
        events: bool = True,
        usage: bool = True,
        most: int = 100_000,
        ttl: float | timedelta | None = timedelta(days=30),
        window: float | timedelta = timedelta(days=1),
    ) -> None:
        """Keep what every `turn.session` tells of events and usage in Redis, by tenant: one stream and one sum of all.

        Read them with `RedisEventSink` and `RedisUsageSink` of `techrevati.store.sinks`.  What a turn tells again,
        because it runs again, counts once.  Nobody waits for a write; a killed worker loses what it took in 0.1 s.

        Args:
            most: entries that a stream keeps; totals keep counting.
            ttl: how long a tenant's sinks are kept without use; None for ever.
            window: how long what was told is known again.

        Raises:
            AlreadyDeclared, ValueError: refused before anything is registered.
        """
        if self.telling is not None:
            raise AlreadyDeclared("telling sinks", self.name, "")
        if most < 1:
            raise ValueError(f"most {most}: a sink keeps at least one entry")
        kept = None if ttl is None else as_seconds(ttl, "ttl")
        self.telling = SinkSpec(events, usage, most, kept, as_seconds(window, "window"))

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
