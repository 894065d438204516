"""Replace older history by a summary that a model writes, once it has grown too long.

    history > threshold ─▶ cut between rounds ─▶ model ─▶ summary and boundary in the state
    every request after it: summary │ what the user said last │ messages behind the boundary

The thread keeps its messages: the boundary is a message id, and undoing it would show them again.  If the
model fails, or little would be won, the request goes out as it is, and nothing is tried again until the
conversation has grown.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import msgspec

from techrevati.agent.actions import (
    ActionSet,
    AddRequestTransform,
    BeforeInferenceAction,
    Effect,
    RequestView,
)
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.behaviours.context_window import PINNED
from techrevati.agent.behaviours.offload import OffloadPolicy, offload
from techrevati.agent.behaviours.rounds import rounds
from techrevati.agent.behaviours.summary import SUMMARY_PROMPT, chunks, request_text
from techrevati.agent.behaviours.tokens import message_tokens
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.model import InferenceError, ModelPort, ModelRequest
from techrevati.agent.state.document import find
from techrevati.agent.state.notation import Path
from techrevati.agent.state.paths import SUSPENDED_CALL, TOOL_CALL_SCOPE
from techrevati.agent.state.spec import AnyStateAction, StateSpec
from techrevati.agent.threads.message import Message, Role, Visibility

SUMMARY_ID = "context:compaction"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionPolicy:
    """When history is summarised, in tokens.

    Attributes:
        threshold: History longer than this is compacted.
        min_gain: Less than this is not worth a model call.
        keep_recent: Messages at the end that are never summarised; also how many more must come before
            another try after a failure.
        summary_tokens: Longest summary.
        max_input_tokens: Longest text the model gets at once; a longer history is summarised piece by piece.
        timeout: Seconds for all of it.
    """

    threshold: int = 120_000
    min_gain: int = 1024
    keep_recent: int = 10
    summary_tokens: int = 2048
    max_input_tokens: int = 100_000
    timeout: float = 120.0


class Compacted(msgspec.Struct, frozen=True, tag="compacted"):
    until: str
    summary: str


class NotCompacted(msgspec.Struct, frozen=True, tag="not_compacted"):
    """It failed, or was not worth it, when the thread had this many messages."""

    messages: int


class CompactionState(StateSpec):
    """The durable boundary: the last message that the summary stands for."""

    PATH: ClassVar[Path] = ("__compaction",)
    NAME = "Compaction"
    ACTION = Compacted | NotCompacted

    until: str | None = None
    summary: str = ""
    tried_at: int | None = None

    def reduce(self, action: Compacted | NotCompacted) -> None:
        match action:
            case Compacted(until, summary):
                self.until, self.summary, self.tried_at = until, summary, None
            case NotCompacted(messages):
                self.tried_at = messages


def boundary(messages: Sequence[Message], until: str | None) -> int:
    """Give how many messages a boundary stands for; 0 if it is not (or no longer) among them."""
    return next((index + 1 for index, message in enumerate(messages) if message.id == until), 0)


def cut(messages: Sequence[Message], *, start: int, keep_recent: int, open_calls: set[str]) -> int:
    """Find where history may be cut: as late as it can be, before the recent messages, inside no round.

    A round stays whole, and one with a call of `open_calls` (suspended, or still under way) stays altogether.
    """
    best = max(start, len(messages) - keep_recent)
    for group in reversed(rounds(messages)):
        asks = {call.id for index in group for call in messages[index].tool_calls}
        if group[-1] >= best or asks & open_calls:
            best = min(best, group[0])
    return max(best, start)


def open_calls(messages: Sequence[Message], document: Any, run_id: str) -> set[str]:
    """Give the calls that wait for an answer, and those of this run that have no result yet."""
    scopes = find(document, TOOL_CALL_SCOPE)
    parked = (
        {call for call, scope in scopes.items() if SUSPENDED_CALL[0] in scope} if isinstance(scopes, dict) else set()
    )
    done = {message.tool_call_id for message in messages if message.role is Role.TOOL}
    asked = {call.id for message in messages if message.run_id == run_id for call in message.tool_calls}
    return parked | (asked - done)


def shortened(view: RequestView, replaced: Sequence[Message], summary: str) -> RequestView:
    """Give the request with a summary in place of the messages it stands for.

    What the user said last stays word for word, wherever it stands.
    """
    gone = {message.id for message in replaced}
    said = [m for m in view.messages if m.role is Role.USER and m.visibility is Visibility.ALL]
    gone -= {message.id for message in said[-1:]}
    kept = [message for message in view.messages if message.id not in gone]
    asked = {call.id for message in kept for call in message.tool_calls}
    kept = [message for message in kept if message.role is not Role.TOOL or message.tool_call_id in asked]
    at = next((index for index, message in enumerate(view.messages) if message.id in gone), None)
    if at is None:
        return view
    return replace(view, messages=(*kept[:at], summary_message(summary), *kept[at:]))


def summary_message(summary: str) -> Message:
    """Give the message that stands for older history: what users and tools said, so no system message."""
    return Message.user(
        f"<summary-of-earlier-conversation>\n{summary}\n</summary-of-earlier-conversation>",
        id=SUMMARY_ID,
        visibility=Visibility.INTERNAL,
        metadata={PINNED: True},
    )


class Compaction(AgentBehavior):
    """Summarises older history with a model.

    Args:
        offload: How large tool results are shown; what is only previewed in requests counts as its preview.
    """

    id = "compaction"
    states = (CompactionState,)

    def __init__(
        self,
        port: ModelPort,
        model: str,
        policy: CompactionPolicy | None = None,
        *,
        offload: OffloadPolicy | None = None,
    ) -> None:
        self.policy = policy or CompactionPolicy()
        self._port, self._model, self._offload = port, model, offload

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        state = ctx.scoped_state_of(CompactionState)
        start = boundary(ctx.messages, state.until)
        summary = state.summary if start else ""
        made: Compacted | NotCompacted | None = None
        if self._is_due(ctx.messages, start, summary, state.tried_at):
            made = await self._compact(ctx, start, summary)
            if isinstance(made, Compacted):
                start, summary = boundary(ctx.messages, made.until), made.summary
        actions: list[BeforeInferenceAction] = [AnyStateAction.new(CompactionState, made)] if made else []
        if start:
            replaced = tuple(ctx.messages[:start])
            actions.append(AddRequestTransform(lambda view: shortened(view, replaced, summary)))
        return ActionSet.of(actions)

    def _is_due(self, messages: Sequence[Message], start: int, summary: str, tried_at: int | None) -> bool:
        if tried_at is not None and len(messages) < tried_at + self.policy.keep_recent:
            return False
        return self._tokens(messages[start:], summary) > self.policy.threshold

    def _tokens(self, messages: Sequence[Message], summary: str) -> int:
        shown = messages if self._offload is None else offload(self._offload, messages)
        standing = message_tokens(summary_message(summary)) if summary else 0
        return sum(message_tokens(message) for message in shown) + standing

    async def _compact(self, ctx: ReadOnlyContext, start: int, summary: str) -> Compacted | NotCompacted:
        messages, policy = ctx.messages, self.policy
        not_now = NotCompacted(len(messages))
        parked = open_calls(messages, ctx.document, ctx.run_id)
        end = cut(messages, start=start, keep_recent=policy.keep_recent, open_calls=parked)
        before = self._tokens(messages[start:end], summary)
        if end == start or before < policy.min_gain:
            return not_now
        try:
            async with asyncio.timeout(policy.timeout):
                for piece in chunks(messages[start:end], policy.max_input_tokens):
                    summary = await self._summarise(piece, summary)
        except (InferenceError, TimeoutError, ValueError):
            return not_now
        except Exception:  # noqa: BLE001  a port's own fault is a failed inference like any other
            return not_now
        if before - message_tokens(summary_message(summary)) < policy.min_gain:
            return not_now
        return Compacted(messages[end - 1].id, summary)

    async def _summarise(self, piece: str, summary: str) -> str:
        request = ModelRequest(
            self._model,
            (Message.system(SUMMARY_PROMPT), Message.user(request_text(piece, summary))),
            options={"max_tokens": self.policy.summary_tokens},
            max_output_tokens=self.policy.summary_tokens,
        )
        text = (await self._port.infer(request, lambda _: None)).text.strip()
        if not text:
            raise ValueError("the model gave no summary")
        return text
