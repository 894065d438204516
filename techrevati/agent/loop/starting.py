"""From a request to a run that may take its first step.

(request, thread, agent) ──prepare_run──▶ change to store, and the checkpoint the first step starts from
"""

from dataclasses import dataclass, replace

import msgspec

from techrevati.agent import wording
from techrevati.agent.agent import Agent
from techrevati.agent.context import RunIdentity
from techrevati.agent.loop import records
from techrevati.agent.loop.checkpoint import Checkpoint
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import Document, apply, find
from techrevati.agent.state.patch import Delete, Patch, Set, TrackedPatch
from techrevati.agent.state.paths import call_path
from techrevati.agent.threads.ids import NewId, new_id
from techrevati.agent.threads.message import Message, Role
from techrevati.agent.threads.prepare import PreparedRun, RunMode, prepare
from techrevati.agent.threads.runs import RunRequest
from techrevati.agent.threads.store import Loaded, ThreadStore
from techrevati.agent.tools import ToolResult


@dataclass(frozen=True, slots=True)
class ReadyRun:
    """A run that starts once `prepared` is stored.  It may be looked at, or dropped, before."""

    prepared: PreparedRun
    identity: RunIdentity
    policy: RunPolicy
    checkpoint: Checkpoint

    @property
    def run_id(self) -> str:
        return self.identity.run_id

    @property
    def thread_id(self) -> str:
        return self.identity.thread_id


def prepare_run(
    agent: Agent,
    request: RunRequest,
    loaded: Loaded | None,
    *,
    now_ms: int,
    policy: RunPolicy | None = None,
    mode: RunMode = RunMode.TASK,
    on_suspend: records.OnSuspend = records.OnSuspend.FINISH,
    parent_tool_call_id: str | None = None,
    depth: int = 0,
    above: tuple[Document | None, ...] = (),
    make_id: NewId = new_id,
) -> ReadyRun:
    """Decide what to store before the first step; nothing is stored here.

    Args:
        policy: The request's own lists; the agent's fill only what it leaves open.
        above: What binds a child (`ChildStart.above`); of a request with a parent and without it, that is not known.

    Raises:
        InvalidId, LineageConflict, BadValue: as `prepare` says.
    """
    prepared = prepare(request, loaded, agent.states, now_ms=now_ms, mode=mode, make_id=make_id)
    asked = prepared.request
    identity = RunIdentity(
        prepared.thread_id,
        prepared.run_id,
        agent.id,
        asked.origin,
        asked.parent_thread_id,
        asked.parent_run_id,
        parent_tool_call_id,
    )
    known = loaded.thread.messages if loaded is not None else ()
    merged = (policy or RunPolicy()).filled_from(agent.definition.policy)
    if not above and identity.parent_thread_id is not None:
        above = (None,)
    indexed = mode is RunMode.TASK
    plan = records.RunPlan(identity, merged, len(known), now_ms, on_suspend, depth, indexed, above)
    patch = records.set_plan(plan)
    said = any(message.role is Role.USER for message in prepared.messages)
    if said and find(prepared.document, records.DECISIONS) is not None:
        patch = patch + Patch((Delete(records.DECISIONS),))
    waiting = _Waiting()
    if said and loaded is not None:
        before = loaded.thread.rebuild_state(agent.states.lattices)
        waiting = _waiting(before, asked, prepared.run_id, make_id)
        patch = patch + waiting.kept
    document = apply(prepared.document, patch)
    if asked.initial_decisions:
        early = (*records.early_decisions(document), *asked.initial_decisions)
        step = records.set_early_decisions(early)
        document, patch = apply(document, step), patch + step
    prepared = _with(prepared, patch, document, waiting.closing, now_ms)
    messages = (*known, *prepared.change.messages)
    return ReadyRun(
        prepared, identity, merged, Checkpoint(prepared.thread_id, messages, document, prepared.precondition.version)
    )


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What becomes of parked calls when the user says something new.

    Attributes:
        kept: Gives back those the request itself decides.
        closing: A result for each of the others: they are abandoned, and the model is to know.
    """

    kept: Patch = Patch.EMPTY
    closing: tuple[Message, ...] = ()


def _waiting(before: Document, asked: RunRequest, run_id: str, make_id: NewId) -> _Waiting:
    kept, closing = Patch.EMPTY, list[Message]()
    for call in records.suspended_calls(before):
        if any(call.answers_to(decision.target_id) for decision in asked.initial_decisions):
            kept = kept + Patch((Set(call_path(call.call_id), find(before, call_path(call.call_id))),))
        else:
            result = ToolResult.error(call.tool_name, wording.ABANDONED)
            closing.append(wording.tool_message(make_id(), call.call_id, result).within(run_id))
    return _Waiting(kept, tuple(closing))


def _with(
    prepared: PreparedRun, patch: Patch, document: Document, closing: tuple[Message, ...], now_ms: int
) -> PreparedRun:
    change = msgspec.structs.replace(prepared.change, messages=(*closing, *prepared.change.messages))
    if change.snapshot is not None:
        change = msgspec.structs.replace(change, snapshot=document)
    else:
        tracked = TrackedPatch(patch, source="runtime", timestamp=now_ms)
        change = msgspec.structs.replace(change, patches=(*change.patches, tracked))
    return replace(prepared, change=change, document=document)


async def store_run(store: ThreadStore, ready: ReadyRun) -> Checkpoint:
    """Store a prepared run; give the checkpoint of its first step.

    Raises:
        ThreadExists, VersionConflict: somebody else wrote to the thread since it was loaded.
    """
    if ready.prepared.create is not None:
        await store.create(ready.prepared.create)
    version = await store.append(ready.thread_id, ready.prepared.change, ready.prepared.precondition)
    start = ready.checkpoint
    return Checkpoint(start.thread_id, start.messages, start.document, version)


def checkpoint_of(agent: Agent, loaded: Loaded) -> Checkpoint:
    """Give the checkpoint of a stored thread."""
    thread = loaded.thread
    return Checkpoint(thread.id, thread.messages, thread.rebuild_state(agent.states.lattices), loaded.version)
