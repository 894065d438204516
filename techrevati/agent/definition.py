"""What an agent is, declared: model, instructions, tools, behaviours, sub-agents, conditions, policy, output.

    AgentDefinition ──build──▶ Agent (frozen), or a WiringError that names what does not fit

Everything a run uses is settled here: tools and behaviours are never looked up while it runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.policy import RunPolicy
from techrevati.agent.retries import LlmRetryPolicy
from techrevati.agent.stopping import StopPolicy, StopSpec
from techrevati.agent.tools import Tool


class ToolExecutionMode(StrEnum):
    """How the calls of one answer are carried out."""

    SEQUENTIAL = "sequential"
    """One after the other, each on what the one before left; the first that suspends ends the round."""
    PARALLEL_BATCH_APPROVAL = "parallel_batch_approval"
    """All at once on one snapshot; suspended ones go on when all of them are decided."""
    PARALLEL_STREAMING = "parallel_streaming"
    """All at once on one snapshot; each suspended one goes on as soon as it is decided."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """The shape of the final answer.

    Attributes:
        schema: JSON Schema of an object.
        tool_name: The tool through which the model gives it; its arguments are the output.
        corrections: How often the model is asked again when it ends without it.
    """

    schema: Mapping[str, Any]
    tool_name: str = "final_answer"
    corrections: int = 2


@dataclass(frozen=True, slots=True)
class SubAgentSpec:
    """An agent this one may send out: what is advertised of it."""

    id: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDefinition:
    """An agent.

    Attributes:
        max_rounds: Answers per run; 0 = no limit.  A `MaxRounds` condition replaces it.
        deadline: Seconds after which a run is cut off wherever it is, a hung model or tool included.
        suspension_timeout: Seconds a suspended call waits when its ticket names no expiry; None = for ever.
        options: Passed to the model with every request.
        stop_conditions: Asked in order, before `stop_policies`.
    """

    id: str
    model: str
    instructions: str = ""
    description: str = ""
    tools: tuple[Tool, ...] = ()
    behaviors: tuple[AgentBehavior, ...] = ()
    sub_agents: tuple[SubAgentSpec, ...] = ()
    stop_conditions: tuple[StopSpec, ...] = ()
    stop_policies: tuple[StopPolicy, ...] = ()
    policy: RunPolicy = field(default_factory=RunPolicy)
    output: OutputSpec | None = None
    max_rounds: int = 10
    tool_execution_mode: ToolExecutionMode = ToolExecutionMode.PARALLEL_STREAMING
    options: Mapping[str, Any] = field(default_factory=dict)
    fallback_models: tuple[str, ...] = ()
    retry: LlmRetryPolicy = field(default_factory=LlmRetryPolicy)
    deadline: float | None = None
    suspension_timeout: float | None = None
    max_depth: int = 4
