"""Preparing a run: what must be stored before it starts.

request ─▶ ids ─▶ messages nobody has seen ─▶ what the last run left is cleaned away ─▶ __run = running
        ─▶ one change, expecting the version that was read
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from msgspec.structs import replace

from techrevati.agent.state.document import Document, apply_all
from techrevati.agent.state.patch import Patch, Set, TrackedPatch
from techrevati.agent.state.paths import OWN_KEYS, RUN
from techrevati.agent.state.scope import cleanup_for_next_run
from techrevati.agent.state.values import checked
from techrevati.agent.state.wiring import StateRegistry
from techrevati.agent.threads.changeset import CheckpointReason, ThreadChangeSet
from techrevati.agent.threads.errors import LineageConflict
from techrevati.agent.threads.ids import NewId, checked_id, new_id
from techrevati.agent.threads.message import Message, Role
from techrevati.agent.threads.runs import RunMeta, RunRequest, RunStatus
from techrevati.agent.threads.store import Exact, Loaded
from techrevati.agent.threads.thread import Thread, ThreadMetadata

SOURCE = "prepare"


class RunMode(StrEnum):
    """Whose ids a run goes by."""

    TASK = "task"
    """The client's ids and lineage, in the index of runs."""
    DIALOG = "dialog"
    """A run id of ours, no lineage, not in the index: chat protocols."""


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run that may start once `change` is stored (after `create`, if the thread is new).

    Attributes:
        messages: Those of the request that nobody had seen.
        document: The state the run starts from, with everything in `change`.
        request: As asked, with the ids and the lineage that hold.
    """

    thread_id: str
    run_id: str
    create: Thread | None
    change: ThreadChangeSet
    precondition: Exact
    messages: tuple[Message, ...]
    document: Document
    request: RunRequest


def prepare(
    request: RunRequest,
    loaded: Loaded | None,
    states: StateRegistry,
    *,
    now_ms: int,
    mode: RunMode = RunMode.TASK,
    make_id: NewId = new_id,
) -> PreparedRun:
    """Decide what to store before a run; nothing is stored here.

    Args:
        loaded: The thread of `request.thread_id`, or None if there is none yet.

    Raises:
        InvalidId: an id of the request cannot be stored under.
        LineageConflict: the thread has another parent.
        BadValue: the state is not JSON.
    """
    request = _identified(request, mode, make_id)
    thread_id, run_id = str(request.thread_id), str(request.run_id)
    create = None
    if loaded is None:
        create = _new_thread(request, now_ms)
        loaded = Loaded(create, 0)
    thread = loaded.thread
    _check_lineage(thread, request.parent_thread_id)
    messages = tuple(message.within(run_id) for message in _unseen(thread.messages, request.messages))
    replaced = create is None and request.state is not None
    state = thread.rebuild_state(states.lattices)
    if replaced:
        state = _replaced(state, request.state or {})
    patches = _start(state, request, states, messages, now_ms)
    document = apply_all(state, patches, states.lattices)
    change = ThreadChangeSet(
        run_id=run_id,
        parent_run_id=request.parent_run_id,
        reason=CheckpointReason.USER_MESSAGE,
        run_meta=_meta(request) if mode is RunMode.TASK else None,
        messages=messages,
        patches=() if replaced else patches,
        snapshot=document if replaced else None,
    )
    return PreparedRun(thread_id, run_id, create, change, Exact(loaded.version), messages, document, request)


def _identified(request: RunRequest, mode: RunMode, make_id: NewId) -> RunRequest:
    dialog = mode is RunMode.DIALOG
    return replace(
        request,
        thread_id=checked_id(make_id() if request.thread_id is None else request.thread_id),
        run_id=make_id() if dialog or request.run_id is None else checked_id(request.run_id, "run id"),
        parent_run_id=None if dialog else request.parent_run_id,
        parent_thread_id=None if dialog else request.parent_thread_id,
    )


def _new_thread(request: RunRequest, now_ms: int) -> Thread:
    return Thread(
        id=str(request.thread_id),
        resource_id=request.resource_id,
        parent_thread_id=request.parent_thread_id,
        state=_replaced({}, request.state or {}),
        metadata=ThreadMetadata(created_at=now_ms, updated_at=now_ms),
    )


def _check_lineage(thread: Thread, parent: str | None) -> None:
    if parent is not None and thread.parent_thread_id is not None and parent != thread.parent_thread_id:
        raise LineageConflict(thread.id, thread.parent_thread_id, parent)


def _unseen(known: Iterable[Message], inbound: Iterable[Message]) -> list[Message]:
    ids, answered = set(), set()
    for message in known:
        ids.add(message.id)
        answered.add(message.tool_call_id)
    answered.discard(None)
    fresh = []
    for message in inbound:
        if message.id in ids or message.tool_call_id in answered:
            continue
        ids.add(message.id)
        if message.tool_call_id is not None:
            answered.add(message.tool_call_id)
        fresh.append(message)
    return fresh


def _replaced(state: Document, given: dict[str, Any]) -> Document:
    """Give the client's state, but the runtime's own keys as they stand: they are not the client's to say."""
    kept = {key: value for key, value in state.items() if _is_own(key)}
    return {**{key: value for key, value in checked(given).items() if not _is_own(key)}, **kept}


def _is_own(key: str) -> bool:
    return key.startswith("__") or key in OWN_KEYS


def _start(
    state: Document, request: RunRequest, states: StateRegistry, messages: Iterable[Message], now_ms: int
) -> tuple[TrackedPatch, ...]:
    said = any(message.role is Role.USER for message in messages)
    cleanup = cleanup_for_next_run(state, states.scopes, new_user_input=said)
    running = Set(RUN, {"id": request.run_id, "status": RunStatus.RUNNING.value, "updated_at": now_ms})
    return (TrackedPatch(cleanup + Patch((running,)), source=SOURCE, timestamp=now_ms),)


def _meta(request: RunRequest) -> RunMeta:
    return RunMeta(request.agent_id, request.origin, RunStatus.RUNNING, request.parent_thread_id)
