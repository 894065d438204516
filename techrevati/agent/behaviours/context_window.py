"""Keep a request inside the model's window by leaving out its oldest history.

    request ──▶ window − output − tools − system = room ──▶ newest rounds that fit, oldest left out

The thread keeps everything: only the request is shorter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from techrevati.agent.actions import AddRequestTransform, BeforeInferenceAction, Effect, RequestView
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.behaviours.rounds import rounds
from techrevati.agent.behaviours.tokens import message_tokens, system_tokens, tool_tokens
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.errors import AgentError
from techrevati.agent.threads.message import Message, Role, Visibility
from techrevati.agent.tools import ToolDescriptor

PINNED = "pinned"
"""A message with this in its metadata is never left out (what stands for older history carries it)."""


class BadWindow(AgentError):
    """A context window that could hold nothing."""

    def __init__(self, field: str, value: int, rule: str) -> None:
        super().__init__(field, value, rule)
        self.field, self.value, self.rule = field, value, rule

    def __str__(self) -> str:
        return f"context window {self.field}={self.value} is refused; fix: {self.rule}"


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    """How large the window is, in tokens, and what always stays."""

    max_context_tokens: int = 200_000
    max_output_tokens: int = 16_384
    min_recent_messages: int = 10
    enable_prompt_cache: bool = True

    def __post_init__(self) -> None:
        if self.max_output_tokens < 0:
            raise BadWindow("max_output_tokens", self.max_output_tokens, "use 0 or more")
        if self.max_context_tokens <= self.max_output_tokens:
            raise BadWindow("max_context_tokens", self.max_context_tokens, "more than max_output_tokens")
        if self.min_recent_messages < 1:
            raise BadWindow("min_recent_messages", self.min_recent_messages, "keep at least 1")

    @classmethod
    def for_model(cls, model: str) -> "WindowPolicy":
        """Give the window of a model by its name, ``openai:gpt-4o`` or ``gpt-4o``; else the default, Claude's."""
        name = model.rpartition(":")[2].rpartition("/")[2]
        if name.startswith("gpt-4o"):
            return cls(128_000, 16_384, enable_prompt_cache=False)
        if name.startswith("gpt-4"):
            return cls(128_000, 4_096, enable_prompt_cache=False)
        return cls()


def room(policy: WindowPolicy, messages: Sequence[Message], tools: Sequence[ToolDescriptor]) -> int:
    """Give the tokens left for history; negative if tools and system alone are too many."""
    return policy.max_context_tokens - policy.max_output_tokens - tool_tokens(tools) - system_tokens(messages)


def fit(policy: WindowPolicy, messages: Sequence[Message], tools: Sequence[ToolDescriptor] = ()) -> tuple[Message, ...]:
    """Leave out the oldest history until the rest fits.

    Always kept, even over the budget: system messages, pinned ones, the last `min_recent_messages`, and the
    last thing a user said (a long tool round must not lose its own task).  A tool call and its results are
    kept or left out together.
    """
    left = room(policy, messages, tools)
    history = [index for index, message in enumerate(messages) if message.role is not Role.SYSTEM]
    always = set(history[-policy.min_recent_messages :]) | _said_last(messages)
    always |= {index for index in history if messages[index].metadata.get(PINNED)}
    groups = rounds(messages)
    kept = {index for group in groups if always.intersection(group) for index in group}
    left -= sum(message_tokens(messages[index]) for index in kept)
    for group in reversed(groups):
        if group[0] in kept:
            continue
        left -= sum(message_tokens(messages[index]) for index in group)
        if left < 0:
            break  # what is older goes too: a conversation with holes misleads
        kept.update(group)
    return tuple(m for index, m in enumerate(messages) if m.role is Role.SYSTEM or index in kept)


def _said_last(messages: Sequence[Message]) -> set[int]:
    said = (
        index
        for index in reversed(range(len(messages)))
        if messages[index].role is Role.USER and messages[index].visibility is Visibility.ALL
    )
    return set(list(said)[:1])


class ContextWindow(AgentBehavior):
    """Shortens every request to the window of its model."""

    id = "context_window"
    after = ("compaction", "artefact_offload")  # what they save need not be left out

    def __init__(self, policy: WindowPolicy | None = None) -> None:
        self.policy = policy or WindowPolicy()

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        return AddRequestTransform(self.shorten)

    def shorten(self, view: RequestView) -> RequestView:
        """Give the request as it is sent."""
        messages = fit(self.policy, view.messages, view.tools)
        return replace(view, messages=messages, prompt_cache=view.prompt_cache or self.policy.enable_prompt_cache)
