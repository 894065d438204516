"""Build an agent from its definition: the runtime's own parts around the author's.

sub-agent tools and recovery ▶ the definition's behaviours ▶ output ▶ stop policy
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from techrevati.agent.agent import Agent, wire
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.definition import AgentDefinition
from techrevati.agent.errors import WiringError
from techrevati.agent.output import OutputBehavior, OutputTool
from techrevati.agent.state.document import Document
from techrevati.agent.stop_policy import StopPolicyBehavior
from techrevati.agent.stopping import with_max_rounds
from techrevati.agent.subagents.behavior import Permission, RecoveryBehavior, SubAgentsBehavior, Verdict
from techrevati.agent.subagents.tools import sub_agent_tools


class Ruling(Protocol):
    """What a judge says; `effect` reads ``allow``, ``ask`` or ``deny``."""

    @property
    def effect(self) -> str: ...


@runtime_checkable
class Judge(Protocol):
    """A behaviour that can say what would become of a call, as `Permissions` does."""

    def verdict(self, document: Document, tool: str, arguments: Any) -> Ruling: ...


def _permission(definition: AgentDefinition) -> Permission:
    """Ask the agent's own judge what may happen without asking; without one, everything is asked."""
    judge = next((behavior for behavior in definition.behaviors if isinstance(behavior, Judge)), None)

    def permission(ctx: ReadOnlyContext, action: str) -> Verdict:
        ruling = "ask" if judge is None else str(judge.verdict(ctx.document, action, {}).effect)
        return "allow" if ruling == "allow" else "deny" if ruling == "deny" else "ask"

    return permission


def build(definition: AgentDefinition, *, knows_model: Callable[[str], bool] | None = None) -> Agent:
    """Wire an agent.

    Args:
        knows_model: Says whether a model of that name can be called; None leaves it to the first call.

    Raises:
        WiringError: its parts do not fit together; the text names which and how to fix it.
        BadToolSchema, BadSpec, NameTaken: a part is declared wrongly.
    """
    for model in (definition.model, *definition.fallback_models):
        if knows_model is not None and not knows_model(model):
            raise WiringError(definition.id, f"model {model!r} is unknown", "name one that is registered")
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
