"""Policy around a run: what an agent does at each phase, whatever its tools are.

    class Polite(AgentBehavior):
        id = "polite"
        states = (Greeted,)

        async def before_inference(self, ctx):
            return AddSystemContext("Say hello first.")

A business capability is a tool; a uniform rule is a behaviour.  Hooks look and answer; they change nothing.
"""

from collections.abc import Sequence
from typing import ClassVar

from techrevati.agent.actions import (
    AfterInferenceAction,
    AfterToolExecuteAction,
    BeforeInferenceAction,
    BeforeToolExecuteAction,
    Effect,
    LifecycleAction,
)
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.state.spec import StateSpec


class AgentBehavior:
    """Eight hooks without effect; override those you need.

    `states` names the typed states this behaviour owns: their scopes, lattice paths and action decoders are
    registered from it.  One instance serves many runs at once: keep nothing about a run in it.
    """

    id: str = ""
    states: ClassVar[Sequence[type[StateSpec]]] = ()
    after: ClassVar[Sequence[str]] = ()
    before: ClassVar[Sequence[str]] = ()

    def behavior_ids(self) -> list[str]:
        """Give every id this behaviour answers to; a bundle gives its parts'."""
        return [self.id]

    def owned_states(self) -> Sequence[type[StateSpec]]:
        """Give the typed states to register; a bundle gives its parts'."""
        return self.states

    async def run_start(self, ctx: ReadOnlyContext) -> Effect[LifecycleAction]:
        """Before anything else of the run, and before its first event."""
        return None

    async def step_start(self, ctx: ReadOnlyContext) -> Effect[LifecycleAction]:
        return None

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        """Before the request is built; sees the state `step_start` left."""
        return None

    async def after_inference(self, ctx: ReadOnlyContext) -> Effect[AfterInferenceAction]:
        """After an answer, and after a failure (`ctx.inference_error`)."""
        return None

    async def step_end(self, ctx: ReadOnlyContext) -> Effect[LifecycleAction]:
        """After the assistant's message was appended, before the tool round."""
        return None

    async def before_tool_execute(self, ctx: ReadOnlyContext) -> Effect[BeforeToolExecuteAction]:
        """The gate of one call."""
        return None

    async def after_tool_execute(self, ctx: ReadOnlyContext) -> Effect[AfterToolExecuteAction]:
        """After one call, also when it was blocked, failed or suspended."""
        return None

    async def run_end(self, ctx: ReadOnlyContext) -> Effect[LifecycleAction]:
        """On every terminal path, errors and cancellation included."""
        return None
