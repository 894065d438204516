"""Build an agent from its definition: the runtime's own parts around the author's.

sub-agent tools and recovery ▶ the definition's behaviours ▶ output ▶ stop policy
"""

from typing import Protocol, runtime_checkable

from techrevati.agent.agent import Agent, wire
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.definition import AgentDefinition
from techrevati.agent.output import OutputBehavior, OutputTool
from techrevati.agent.stop_policy import StopPolicyBehavior
from techrevati.agent.stopping import with_max_rounds
from techrevati.agent.subagents.behavior import Permission, RecoveryBehavior, SubAgentsBehavior, Verdict
from techrevati.agent.subagents.tools import sub_agent_tools


@runtime_checkable
class Judge(Protocol):
    """A behaviour that says what the runtime may do by itself, as `Permissions` does."""

    def may(self, ctx: ReadOnlyContext, action: str) -> Verdict: ...


def _permission(definition: AgentDefinition) -> Permission:
    """Ask the agent's own judge; without one, everything is asked."""
    judge = next((behavior for behavior in definition.behaviors if isinstance(behavior, Judge)), None)
    return (lambda ctx, action: "ask") if judge is None else judge.may


def build(definition: AgentDefinition) -> Agent:
    """Wire an agent.

    Raises:
        WiringError: its parts do not fit together; the text names which and how to fix it.
        BadToolSchema, BadSpec, NameTaken: a part is declared wrongly.
    """
    conditions = (*with_max_rounds(definition.stop_conditions, definition.max_rounds), *definition.stop_policies)
    trailing = [*([OutputBehavior()] if definition.output else ()), StopPolicyBehavior(conditions)]
    tools = [OutputTool(definition.output)] if definition.output else []
    if not definition.sub_agents:
        return wire(definition, trailing=trailing, system_tools=tools)
    return wire(
        definition,
        leading=[SubAgentsBehavior(definition.sub_agents), RecoveryBehavior(_permission(definition))],
        trailing=trailing,
        system_tools=[*sub_agent_tools(definition), *tools],
    )
