"""What a hook or a tool asks for.  Nothing here does anything: the loop applies it.

    hook(ctx) ──▶ Effect: an ActionSet, one bare action, or None ──checked against its phase──▶ loop

A state action needs no wrapper: `AnyStateAction` is itself an action of every phase.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from techrevati.agent.endings import BEHAVIOR_REQUESTED, TerminationReason
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.suspension import SuspendTicket
from techrevati.agent.threads.message import Message
from techrevati.agent.tools import ToolDescriptor, ToolResult
from techrevati.runtime.errors import TechrevatiError

A_co = TypeVar("A_co", covariant=True)
B = TypeVar("B")


class Phase(StrEnum):
    """The eight places where behaviours act, in the order they come."""

    RUN_START = "run_start"
    STEP_START = "step_start"
    BEFORE_INFERENCE = "before_inference"
    AFTER_INFERENCE = "after_inference"
    STEP_END = "step_end"
    BEFORE_TOOL_EXECUTE = "before_tool_execute"
    AFTER_TOOL_EXECUTE = "after_tool_execute"
    RUN_END = "run_end"


class Target(StrEnum):
    """Where a context message goes."""

    SYSTEM = "system"
    """After the base system prompt."""
    SESSION = "session"
    """Between the system prompt and the history."""
    CONVERSATION = "conversation"
    """An ordinary, stored message; never throttled."""
    SUFFIX_SYSTEM = "suffix_system"
    """After the history."""


@dataclass(frozen=True, slots=True)
class ContextMessage:
    """Text for the model that is not part of the conversation (unless its target says so).

    Attributes:
        key: Identity for de-duplication inside a request and for the cooldown.
        cooldown_turns: Inferences of the thread to skip after an injection; 0 = every one.
        visibility: Who sees a ``conversation`` message: ``all`` or ``internal``.
    """

    key: str
    content: str
    cooldown_turns: int = 0
    target: Target = Target.SYSTEM
    role: Literal["system", "user"] = "system"
    visibility: Literal["all", "internal"] = "internal"


@runtime_checkable
class CustomAction(Protocol):
    """An action of one's own: it checks its phase and stands for built-in actions of that phase."""

    @property
    def label(self) -> str: ...

    def validate(self, phase: Phase) -> str | None:
        """Give None, or why the action is refused in `phase`."""
        ...

    def expand(self, phase: Phase) -> "Sequence[Action]": ...


@dataclass(frozen=True, slots=True)
class Terminate:
    """End the run: before the model is called, or after it answered (a stop lets the tool round finish)."""

    reason: TerminationReason = BEHAVIOR_REQUESTED


@dataclass(frozen=True, slots=True)
class AddContextMessage:
    message: ContextMessage


@dataclass(frozen=True, slots=True)
class AddSystemContext:
    """Append a block to the system prompt of this inference."""

    text: str


@dataclass(frozen=True, slots=True)
class AddSessionContext:
    """Put a system message between the system prompt and the history of this inference."""

    text: str


@dataclass(frozen=True, slots=True)
class ExcludeTool:
    """Hide a tool from this inference."""

    tool_id: str


@dataclass(frozen=True, slots=True)
class IncludeOnlyTools:
    """Keep only these of the tools still on offer for this inference."""

    tool_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RequestView:
    """What a transform gets: the assembled messages and the tools on offer."""

    messages: tuple[Message, ...]
    tools: tuple[ToolDescriptor, ...]
    prompt_cache: bool = False


RequestTransform: TypeAlias = Callable[[RequestView], RequestView]


@dataclass(frozen=True, slots=True)
class AddRequestTransform:
    """Change the assembled messages of this inference; `prompt_cache` flags are or-ed, tools are read-only."""

    transform: RequestTransform


@dataclass(frozen=True, slots=True)
class OverrideModel:
    """Use another model for this inference; the definition's fallbacks stay behind it."""

    model: str


@dataclass(frozen=True, slots=True)
class OverrideInference:
    """Merge options over the definition's for this inference."""

    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """Do not execute: the model gets an error result with the reason.  Nothing lower can undo it, except a
    later action with ``override=True``."""

    reason: str
    override: bool = False


@dataclass(frozen=True, slots=True)
class Suspend:
    """Park the call."""

    ticket: SuspendTicket
    override: bool = False


@dataclass(frozen=True, slots=True)
class SetToolResult:
    """Use this result; the tool does not run."""

    result: ToolResult
    override: bool = False


@dataclass(frozen=True, slots=True)
class Proceed:
    """Clear what behaviours before this one asked for: let the call through.  Only as an opt-in override."""


@dataclass(frozen=True, slots=True)
class AddSystemReminder:
    """Follow the tool's message with an internal system message, ``<system-reminder>…</system-reminder>``."""

    text: str


@dataclass(frozen=True, slots=True)
class AddUserMessage:
    """Follow the round's tool messages with a user message; blank text is ignored."""

    text: str
    visibility: Literal["all", "internal"] = "all"


@dataclass(frozen=True, slots=True)
class AddMessage:
    """The unified form: store a context message after the round's results."""

    message: ContextMessage


LifecycleAction: TypeAlias = AnyStateAction | CustomAction
BeforeInferenceAction: TypeAlias = (
    AddContextMessage
    | AddSystemContext
    | AddSessionContext
    | ExcludeTool
    | IncludeOnlyTools
    | AddRequestTransform
    | OverrideModel
    | OverrideInference
    | Terminate
    | AnyStateAction
    | CustomAction
)
AfterInferenceAction: TypeAlias = Terminate | AnyStateAction | CustomAction
BeforeToolExecuteAction: TypeAlias = Block | Suspend | SetToolResult | Proceed | AnyStateAction | CustomAction
AfterToolExecuteAction: TypeAlias = AddSystemReminder | AddUserMessage | AddMessage | AnyStateAction | CustomAction
Action: TypeAlias = (
    LifecycleAction | BeforeInferenceAction | AfterInferenceAction | BeforeToolExecuteAction | AfterToolExecuteAction
)

_LIFECYCLE: tuple[type, ...] = (AnyStateAction,)
PERMITTED: Mapping[Phase, tuple[type, ...]] = {
    Phase.RUN_START: _LIFECYCLE,
    Phase.STEP_START: _LIFECYCLE,
    Phase.BEFORE_INFERENCE: (
        AddContextMessage,
        AddSystemContext,
        AddSessionContext,
        ExcludeTool,
        IncludeOnlyTools,
        AddRequestTransform,
        OverrideModel,
        OverrideInference,
        Terminate,
        AnyStateAction,
    ),
    Phase.AFTER_INFERENCE: (Terminate, AnyStateAction),
    Phase.STEP_END: _LIFECYCLE,
    Phase.BEFORE_TOOL_EXECUTE: (Block, Suspend, SetToolResult, Proceed, AnyStateAction),
    Phase.AFTER_TOOL_EXECUTE: (AddSystemReminder, AddUserMessage, AddMessage, AnyStateAction),
    Phase.RUN_END: _LIFECYCLE,
}
"""Which built-in actions each phase takes."""


@dataclass(frozen=True, slots=True)
class ActionSet(Generic[A_co]):
    """Actions in order.  ``a.and_(b)`` appends; it is true when it holds any."""

    actions: tuple[A_co, ...] = field(default=())

    @staticmethod
    def empty() -> "ActionSet[Any]":
        return ActionSet()

    @staticmethod
    def single(action: B) -> "ActionSet[B]":
        return ActionSet((action,))

    @staticmethod
    def of(actions: Iterable[B]) -> "ActionSet[B]":
        return ActionSet(tuple(actions))

    def and_(self, other: "ActionSet[B] | B") -> "ActionSet[A_co | B]":
        more: tuple[B, ...] = other.actions if isinstance(other, ActionSet) else (other,)
        return ActionSet((*self.actions, *more))

    def __iter__(self) -> Iterator[A_co]:
        return iter(self.actions)

    def __len__(self) -> int:
        return len(self.actions)


Effect: TypeAlias = ActionSet[B] | B | None
"""What a hook may return: a set, one bare action, or nothing."""


class WrongPhase(TechrevatiError):
    """An action was given in a phase that does not take it; the run ends with it."""

    def __init__(self, source: str, action: str, phase: str, why: str) -> None:
        super().__init__(source, action, phase, why)
        self.source, self.action, self.phase, self.why = source, action, phase, why

    def __str__(self) -> str:
        return f"{self.source} gave {self.action} in {self.phase}: {self.why}"


def action_set(effect: Any) -> ActionSet[Any]:
    """Accept a set, a bare action, a plain sequence of them, or None."""
    if effect is None:
        return ActionSet()
    if isinstance(effect, ActionSet):
        return effect
    if isinstance(effect, (list, tuple)):
        return ActionSet(tuple(effect))
    return ActionSet((effect,))


def checked(effect: Any, phase: Phase, source: str) -> tuple[Any, ...]:
    """Hold an effect to its phase and expand custom actions.

    Raises:
        WrongPhase: naming who gave what.
    """
    out: list[Any] = []
    for action in action_set(effect):
        if isinstance(action, PERMITTED[phase]):
            out.append(action)
        elif isinstance(action, CustomAction):
            if (why := action.validate(phase)) is not None:
                raise WrongPhase(source, action.label, phase, why)
            out.extend(checked(ActionSet.of(action.expand(phase)), phase, action.label))
        else:
            takes = ", ".join(kind.__name__ for kind in PERMITTED[phase])
            raise WrongPhase(source, type(action).__name__, phase, f"this phase takes {takes}")
    return tuple(out)
