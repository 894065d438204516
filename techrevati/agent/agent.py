"""An agent that fits together: what a run is driven with, settled once.

system behaviours ▶ the definition's, in their order ▶ output ▶ stop policy
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.definition import AgentDefinition
from techrevati.agent.errors import WiringError
from techrevati.agent.loop.records import LOOP, PLAN
from techrevati.agent.policy import RunPolicy
from techrevati.agent.schemas import check_schema
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.wiring import StateRegistry
from techrevati.agent.tools import Tool, ToolDescriptor

RESERVED = frozenset(("agent_tools", "agent_recovery", "background_tasks", "stop_policy", "output"))
"""Ids of behaviours that the runtime brings itself."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A definition with its parts wired; shared by any number of runs.

    Attributes:
        behaviors: In the order their actions are taken.
        tools: Every tool by its id; a run's policy says which of them it may use.
        states: Scopes, lattices and actions of every typed state that a behaviour or a tool owns.
    """

    definition: AgentDefinition
    behaviors: tuple[AgentBehavior, ...]
    tools: Mapping[str, Tool]
    states: StateRegistry

    @property
    def id(self) -> str:
        return self.definition.id

    def knows_tool(self, tool_id: str) -> bool:
        return tool_id in self.tools

    def offered(self, policy: RunPolicy) -> tuple[ToolDescriptor, ...]:
        """Give the descriptors a run's policy leaves, by id."""
        return tuple(self.tools[name].descriptor for name in sorted(self.tools) if policy.allows_tool(name))


def wire(
    definition: AgentDefinition,
    *,
    leading: Sequence[AgentBehavior] = (),
    trailing: Sequence[AgentBehavior] = (),
    system_tools: Sequence[Tool] = (),
) -> Agent:
    """Join a definition with the runtime's own parts.

    Raises:
        WiringError: blank or taken ids, contradictory order, an unusable number.
        BadToolSchema, BadSpec, NameTaken: a part is declared wrongly.
    """
    _check(definition)
    behaviors = (*leading, *_ordered(definition.id, definition.behaviors), *trailing)
    _check_behaviors(definition.id, definition.behaviors, behaviors)
    states = StateRegistry()
    states.scopes.register(PLAN, StateScope.RUN)
    states.scopes.register(LOOP, StateScope.RUN)
    tools = _tools(definition, system_tools)
    of_behaviors = (spec for behavior in behaviors for spec in behavior.owned_states())
    of_tools = (spec for tool in tools.values() for spec in getattr(tool, "states", ()))
    for spec in dict.fromkeys((*of_behaviors, *of_tools)):
        states.register(spec)
    return Agent(definition, behaviors, MappingProxyType(tools), states)


def _check(definition: AgentDefinition) -> None:
    if not definition.id.strip():
        raise WiringError(definition.id, "its id is blank", "give it one")
    if not definition.model.strip():
        raise WiringError(definition.id, "it has no model", "name one, as 'openai:gpt-5-mini'")
    if definition.max_rounds < 0:
        raise WiringError(definition.id, f"max_rounds is {definition.max_rounds}", "use 0 (no limit) or more")
    for name in ("deadline", "suspension_timeout"):
        value = getattr(definition, name)
        if value is not None and value <= 0:
            raise WiringError(definition.id, f"{name} is {value:g} s", "use more than 0, or None")
    targets = [spec.id for spec in definition.sub_agents]
    if definition.id in targets:
        raise WiringError(definition.id, "it is its own sub-agent", "an agent cannot call itself")
    if twice := _twice(targets):
        raise WiringError(definition.id, f"sub-agent {twice!r} is named twice", "name it once")
    if twice := _twice(policy.id for policy in definition.stop_policies):
        raise WiringError(definition.id, f"stop policy id {twice!r} is used twice", "give each its own")


def _check_behaviors(agent_id: str, own: Sequence[AgentBehavior], every: Sequence[AgentBehavior]) -> None:
    for behavior in own:
        for name in behavior.behavior_ids():
            if not name.strip():
                raise WiringError(agent_id, f"a {type(behavior).__name__} has no id", "set its `id`")
            if name in RESERVED:
                raise WiringError(agent_id, f"behavior id {name!r} is the runtime's own", "use another id")
    if twice := _twice(name for behavior in every for name in behavior.behavior_ids()):
        raise WiringError(agent_id, f"behavior id {twice!r} is used twice", "give each behavior its own")


def _twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _ordered(agent_id: str, behaviors: Sequence[AgentBehavior]) -> list[AgentBehavior]:
    """Keep the order of declaration, except where `after` and `before` ask for another.

    Source: Kahn, "Topological sorting of large networks", 1962.
    """
    ids = {behavior.id for behavior in behaviors}
    waits: dict[str, set[str]] = {behavior.id: set(behavior.after) & ids for behavior in behaviors}
    for behavior in behaviors:
        for later in set(behavior.before) & ids:
            waits[later].add(behavior.id)
    left, out = list(behaviors), list[AgentBehavior]()
    placed: set[str] = set()
    while left:
        following = next((b for b in left if waits[b.id] <= placed), None)
        if following is None:
            circle = ", ".join(b.id for b in left)
            raise WiringError(agent_id, f"behaviors {circle} want to come after each other", "drop an after or before")
        left.remove(following)
        placed.add(following.id)
        out.append(following)
    return out


def _tools(definition: AgentDefinition, system: Sequence[Tool]) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for tool in (*system, *definition.tools):
        descriptor = tool.descriptor
        if not descriptor.id.strip():
            raise WiringError(definition.id, "a tool has no id", "set its descriptor's `id`")
        if descriptor.id in tools:
            raise WiringError(definition.id, f"tool id {descriptor.id!r} is used twice", "rename one of them")
        check_schema(descriptor)
        tools[descriptor.id] = tool
    return tools
