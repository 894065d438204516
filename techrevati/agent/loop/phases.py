"""Run the hooks of one phase: all on the same context, at once, their actions in the order of registration."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from techrevati.agent.actions import Phase, checked
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.errors import AgentError
from techrevati.agent.state.spec import AnyStateAction

A = TypeVar("A")


class HookFailed(AgentError):
    """A behaviour raised where it had to decide; the run ends with it."""

    def __init__(self, behavior_id: str, phase: str, cause: str) -> None:
        super().__init__(behavior_id, phase, cause)
        self.behavior_id, self.phase, self.cause = behavior_id, phase, cause

    def __str__(self) -> str:
        return f"behavior {self.behavior_id!r} failed in {self.phase}: {self.cause}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the behaviours of one phase asked for, in order, each action with who asked."""

    entries: tuple[tuple[str, Any], ...] = ()

    def of(self, *kinds: type[A]) -> list[A]:
        """Give the actions of some kinds."""
        return [action for _, action in self.entries if isinstance(action, kinds)]

    @property
    def actions(self) -> list[Any]:
        return [action for _, action in self.entries]

    @property
    def state_actions(self) -> list[AnyStateAction]:
        return self.of(AnyStateAction)


NOTHING = Asked()


def has_hooks(behaviors: Sequence[AgentBehavior], phase: Phase) -> bool:
    """Say whether any behaviour has something to do in a phase."""
    return any(_overrides(behavior, phase) for behavior in behaviors)


async def run_phase(behaviors: Sequence[AgentBehavior], phase: Phase, ctx: ReadOnlyContext) -> Asked:
    """Ask every behaviour.

    Raises:
        HookFailed: a hook raised.
        WrongPhase: an action does not belong into the phase.
    """
    hooks = [(b, getattr(b, phase.value)) for b in behaviors if _overrides(b, phase)]
    if not hooks:
        return NOTHING
    effects = await asyncio.gather(*(_ask(behavior, hook, phase, ctx) for behavior, hook in hooks))
    return Asked(tuple((b.id, a) for (b, _), effect in zip(hooks, effects, strict=True) for a in effect))


def _overrides(behavior: AgentBehavior, phase: Phase) -> bool:
    own = getattr(type(behavior), phase.value, None) is not getattr(AgentBehavior, phase.value)
    return own or phase.value in vars(behavior)


async def _ask(behavior: AgentBehavior, hook: Any, phase: Phase, ctx: ReadOnlyContext) -> tuple[Any, ...]:
    try:
        effect = await hook(ctx)
    except Exception as error:
        raise HookFailed(behavior.id, phase, f"{type(error).__name__}: {error}") from error
    return checked(effect, phase, f"behavior {behavior.id!r}")
