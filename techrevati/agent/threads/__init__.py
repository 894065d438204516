"""Threads: conversations with state, that grow by changes, and what a store of them does."""

from techrevati.agent.threads.changeset import CheckpointReason, ThreadChangeSet
from techrevati.agent.threads.errors import (
    HistoryGone,
    InvalidId,
    LineageConflict,
    NoSuchVersion,
    NotReadable,
    RunElsewhere,
    StoreIo,
    ThreadExists,
    ThreadNotFound,
    ThreadStoreError,
    VersionConflict,
)
from techrevati.agent.threads.history import fork, thread_at
from techrevati.agent.threads.ids import new_id
from techrevati.agent.threads.memory import InMemoryThreadStore
from techrevati.agent.threads.message import Message, Role, ToolCall, Visibility
from techrevati.agent.threads.prepare import PreparedRun, RunMode, prepare
from techrevati.agent.threads.public import public_message, public_thread
from techrevati.agent.threads.queries import (
    MessagePage,
    MessageQuery,
    Order,
    Page,
    PlacedMessage,
    RunQuery,
    ThreadListQuery,
)
from techrevati.agent.threads.runs import RunMeta, RunOrigin, RunRecord, RunRequest, RunStatus
from techrevati.agent.threads.sqlite import SqliteThreadStore
from techrevati.agent.threads.store import (
    ANY_VERSION,
    AnyVersion,
    Exact,
    Loaded,
    Precondition,
    ThreadHistory,
    ThreadReader,
    ThreadStore,
    ThreadSync,
    ThreadWriter,
)
from techrevati.agent.threads.thread import Thread, ThreadMetadata, apply_changeset

__all__ = [
    "ANY_VERSION",
    "AnyVersion",
    "CheckpointReason",
    "Exact",
    "HistoryGone",
    "InMemoryThreadStore",
    "InvalidId",
    "LineageConflict",
    "Loaded",
    "Message",
    "MessagePage",
    "MessageQuery",
    "NoSuchVersion",
    "NotReadable",
    "Order",
    "Page",
    "PlacedMessage",
    "Precondition",
    "PreparedRun",
    "Role",
    "RunElsewhere",
    "RunMeta",
    "RunMode",
    "RunOrigin",
    "RunQuery",
    "RunRecord",
    "RunRequest",
    "RunStatus",
    "SqliteThreadStore",
    "StoreIo",
    "Thread",
    "ThreadChangeSet",
    "ThreadExists",
    "ThreadHistory",
    "ThreadListQuery",
    "ThreadMetadata",
    "ThreadNotFound",
    "ThreadReader",
    "ThreadStore",
    "ThreadStoreError",
    "ThreadSync",
    "ThreadWriter",
    "ToolCall",
    "VersionConflict",
    "Visibility",
    "apply_changeset",
    "fork",
    "new_id",
    "prepare",
    "public_message",
    "public_thread",
    "thread_at",
]
