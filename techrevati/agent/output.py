"""A final answer of a declared shape, given through a tool the model must call.

    model ──final_answer(fields)──▶ held to the schema ──▶ state `output`; the run ends naturally

What does not fit goes back to the model as an error result; an end without the call is asked for again.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from techrevati.agent.actions import BeforeInferenceAction, Effect, Terminate
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.definition import OutputSpec
from techrevati.agent.endings import NATURAL_END
from techrevati.agent.schemas import check_arguments
from techrevati.agent.state.document import Document, find
from techrevati.agent.state.notation import Path
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.spec import AnyStateAction, StateSpec
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolDescriptor, ToolExecutionEffect, ToolResult

OUTPUT: Path = ("output",)


class Given(msgspec.Struct, frozen=True):
    value: Any


class OutputState(StateSpec):
    """The run's output; it stands until the next run is prepared."""

    PATH = OUTPUT
    SCOPE = StateScope.RUN
    ACTION: ClassVar[object] = Given

    value: Any = None
    given: bool = False

    def reduce(self, action: Given) -> None:
        self.value, self.given = action.value, True


class OutputTool:
    """Takes the final answer."""

    repeatable = True

    def __init__(self, spec: OutputSpec) -> None:
        text = "Give the final answer. Call it exactly once, when the work is done."
        self._descriptor = ToolDescriptor(spec.tool_name, spec.tool_name, text, dict(spec.schema))

    @property
    def descriptor(self) -> ToolDescriptor:
        return self._descriptor

    def validate(self, arguments: Any) -> None:
        check_arguments(self._descriptor, arguments)

    async def run(self, arguments: Any, ctx: ToolCallContext) -> ToolExecutionEffect:
        done = ToolResult.success(self._descriptor.id, {"accepted": True})
        return ToolExecutionEffect(done, (AnyStateAction.new(OutputState, Given(arguments)),))


class OutputBehavior(AgentBehavior):
    """Ends the run once its output is given."""

    id = "output"
    states = (OutputState,)

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        return Terminate(NATURAL_END) if is_given(ctx.document) else None


def is_given(document: Document) -> bool:
    return find(document, (*OUTPUT, "given")) is True


def output_of(document: Document) -> Mapping[str, Any] | None:
    """Give the output of the thread's last run; None if it gave none."""
    found: Mapping[str, Any] | None = find(document, (*OUTPUT, "value"))
    return found if is_given(document) else None


def correction(spec: OutputSpec) -> str:
    return f"The run ends with a call of {spec.tool_name!r}. Call it now with the final answer."
