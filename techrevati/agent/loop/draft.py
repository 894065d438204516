"""What one step has gathered and not yet committed, and what it may not tell before that.

    patch, message, held event ──▶ Draft ──commit──▶ changeset ─▶ durable ─▶ events told
                                     └──roll_back──▶ as of the last commit

The only thing of a step that changes; it dies with the step.
"""

import logging
from collections.abc import Iterable
from typing import Any

from techrevati.agent.actions import Phase
from techrevati.agent.context import ReadOnlyContext, RunIdentity
from techrevati.agent.errors import CommitFailed
from techrevati.agent.events import AnyEvent
from techrevati.agent.loop import records
from techrevati.agent.loop.checkpoint import Checkpoint
from techrevati.agent.loop.ports import Ports
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import Document, apply
from techrevati.agent.state.patch import Patch, TrackedPatch
from techrevati.agent.state.reduction import reduce_actions
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.state.wiring import StateRegistry
from techrevati.agent.threads.changeset import CheckpointReason, ThreadChangeSet
from techrevati.agent.threads.message import Message
from techrevati.agent.threads.runs import RunMeta

_log = logging.getLogger(__name__)


class Draft:
    """The thread as this step has made it so far."""

    def __init__(self, start: Checkpoint, plan: records.RunPlan, states: StateRegistry, ports: Ports) -> None:
        self.plan, self.states, self.ports = plan, states, ports
        self.thread_id = start.thread_id
        self.committed = start
        self.messages: list[Message] = list(start.messages)
        self._view: tuple[Message, ...] | None = start.messages
        self.document = start.document
        self.step_id: str | None = None
        self.is_ended = False
        self.run_meta: RunMeta | None = None
        self._messages: list[Message] = []
        self._patches: list[TrackedPatch] = []
        self._log: list[Patch] = []
        self._actions: list[dict[str, Any]] = []
        self._held: list[tuple[AnyEvent, str | None]] = []
        self._told = start.document

    @property
    def identity(self) -> RunIdentity:
        return self.plan.identity

    @property
    def policy(self) -> RunPolicy:
        return self.plan.policy

    @property
    def loop(self) -> records.LoopState:
        return records.loop_state(self.document)

    def view(self) -> tuple[Message, ...]:
        """Give the conversation as it is now."""
        if self._view is None:
            self._view = tuple(self.messages)
        return self._view

    def now_ms(self) -> int:
        return self.ports.now_ms()

    def context(self, phase: Phase, **more: Any) -> ReadOnlyContext:
        """Give what the hooks of a phase see now."""
        seen: dict[str, Any] = {
            "messages": self.view(),
            "document": self.document,
            "step": self.loop.steps,
            "now_ms": self.now_ms(),
            "children": self.ports.children,
            "above": self.plan.above,
            "initial_message_count": self.plan.initial_message_count,
        }
        return ReadOnlyContext(phase=phase, identity=self.identity, policy=self.policy, **{**seen, **more})

    # -- what changes ------------------------------------------------------------------------------

    def apply(self, patch: Patch, source: str = "runtime") -> None:
        """Take a patch in.

        Raises:
            PatchRefused: it does not fit; nothing changes.
        """
        if patch:
            self.document = apply(self.document, patch, self.states.lattices)
            self._log.append(patch)
            self._patches.append(TrackedPatch(patch, source=source, timestamp=self.now_ms()))

    def reduce(self, actions: Iterable[AnyStateAction], *, source: str, actor: str) -> None:
        """Reduce state actions in order, each seeing the one before, and log them.

        Raises:
            UnknownState: an action of a state that neither a behaviour nor a tool owns.
            StateError: a state refused one; nothing changes.
        """
        taken = [action.by(actor) for action in actions]
        for action in taken:
            self.states.actions.read(action.entry())  # a state nobody owns is not cleaned up and cannot be replayed
        if taken:
            reduced = reduce_actions(self.document, taken, actor=actor, registry=self.states.lattices)
            self.log(taken)
            self.apply(reduced.patch, source)

    def log(self, actions: Iterable[AnyStateAction]) -> None:
        """Keep actions whose patch is taken in apart from them."""
        self._actions.extend(action.entry() for action in actions)

    def append(self, message: Message) -> None:
        self.messages.append(message)
        self._view = None
        self._messages.append(message)

    def set_loop(self, **changes: Any) -> None:
        self.apply(records.set_loop(self.document, **changes))

    @property
    def mark(self) -> int:
        """Say how many patches were ever taken in, for `patches_since`."""
        return len(self._log)

    def patches_since(self, mark: int) -> tuple[Patch, ...]:
        """Give the patches taken in since a mark, committed meanwhile or not."""
        return tuple(self._log[mark:])

    # -- what is told ------------------------------------------------------------------------------

    def tell(self, event: AnyEvent) -> None:
        """Tell an event once what it speaks of is committed."""
        self._held.append((event, self.step_id))

    def tell_now(self, event: AnyEvent) -> None:
        """Tell deltas, activity, and what was committed before."""
        self._emit(event, self.step_id)

    def _emit(self, event: AnyEvent, step_id: str | None) -> None:
        try:
            self.ports.sink.emit(event, step_id)
        except Exception:  # noqa: BLE001  whoever listens must not harm the run
            _log.exception("event %s of run %s was not delivered", event.type, self.identity.run_id)

    def changed_state(self) -> Document | None:
        """Give the state as clients see it, if it changed since this was last asked."""
        if self.document is self._told:
            return None
        before, self._told = _shown(self._told), self.document
        after = _shown(self.document)
        return None if before == after else after

    # -- what is made durable ----------------------------------------------------------------------

    async def commit(self, reason: CheckpointReason, *, run_meta: RunMeta | None = None, final: bool = False) -> None:
        """Store what was gathered, then tell the events that waited for it.  Nothing gathered: nothing stored.

        Raises:
            CommitFailed: it was not stored; the caller decides what becomes of the run.
        """
        changeset = ThreadChangeSet(
            run_id=self.identity.run_id,
            parent_run_id=self.identity.parent_run_id,
            run_meta=run_meta or self.run_meta,
            reason=reason,
            messages=tuple(self._messages),
            patches=tuple(self._patches),
            actions=tuple(self._actions),
            snapshot=self.document if final else None,
        )
        if not changeset.is_empty:
            try:
                version = await self.ports.committer.commit(self.thread_id, changeset, self.committed.version)
            except Exception as error:
                raise CommitFailed(str(reason), f"{type(error).__name__}: {error}") from error
            self.committed = Checkpoint(self.thread_id, self.view(), self.document, version)
            self._messages, self._patches, self._actions = [], [], []
            self.run_meta = None
        held, self._held = self._held, []
        for event, step_id in held:
            self._emit(event, step_id)

    def roll_back(self) -> None:
        """Forget everything since the last commit, events that waited included."""
        self.messages, self.document = list(self.committed.messages), self.committed.document
        self._view = self.committed.messages
        self._messages, self._patches, self._actions, self._held = [], [], [], []
        self.run_meta = None


def _shown(document: Document) -> Document:
    return {key: value for key, value in document.items() if key != "__kernel"}
