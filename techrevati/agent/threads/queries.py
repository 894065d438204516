"""Questions about threads, messages and runs, and the pages that answer them.

Pure: a store that holds lists answers with these functions; one that has indexes of its own keeps to them.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import islice
from typing import Generic, TypeVar

import msgspec
from msgspec.structs import force_setattr

from techrevati.agent.threads.message import Message, Visibility
from techrevati.agent.threads.runs import RunOrigin, RunRecord, RunStatus

MAX_LIMIT = 200
T = TypeVar("T")


class Order(StrEnum):
    ASC = "asc"
    DESC = "desc"


class _Limited(msgspec.Struct, frozen=True, kw_only=True):
    limit: int = 50
    """At most this many; kept within 1 to 200."""

    def __post_init__(self) -> None:
        force_setattr(self, "limit", min(MAX_LIMIT, max(1, self.limit)))


class MessageQuery(_Limited, frozen=True, kw_only=True):
    """Messages of a thread.  A cursor is a message's place in it, from 0; `after` and `before` are left out.

    `visibility`: only such messages; None for all of them.
    """

    after: int | None = None
    before: int | None = None
    order: Order = Order.ASC
    visibility: Visibility | None = Visibility.ALL
    run_id: str | None = None


class _Offset(_Limited, frozen=True, kw_only=True):
    offset: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        force_setattr(self, "offset", max(0, self.offset))


class ThreadListQuery(_Offset, frozen=True, kw_only=True):
    """Ids of threads, sorted."""

    resource_id: str | None = None
    parent_thread_id: str | None = None


class RunQuery(_Offset, frozen=True, kw_only=True):
    """Runs, by when they were created; times in unix ms, both ends included."""

    thread_id: str | None = None
    parent_run_id: str | None = None
    status: RunStatus | None = None
    termination_code: str | None = None
    origin: RunOrigin | None = None
    created_at_from: int | None = None
    created_at_to: int | None = None
    updated_at_from: int | None = None
    updated_at_to: int | None = None


FIRST_MESSAGES, FIRST_THREADS, FIRST_RUNS = MessageQuery(), ThreadListQuery(), RunQuery()


class PlacedMessage(msgspec.Struct, frozen=True):
    """A message and its place in the thread."""

    cursor: int
    message: Message


class MessagePage(msgspec.Struct, frozen=True, omit_defaults=True):
    """To go on: `after=next_cursor` ascending, `before=next_cursor` descending."""

    messages: tuple[PlacedMessage, ...]
    has_more: bool
    next_cursor: int | None = None
    prev_cursor: int | None = None


class Page(msgspec.Struct, Generic[T], frozen=True):
    """`total` counts everything the query asks for, whatever its limit."""

    items: tuple[T, ...]
    total: int
    has_more: bool


def page_of_messages(messages: Sequence[Message], query: MessageQuery) -> MessagePage:
    """Answer from a thread's messages, in their order."""
    first = 0 if query.after is None else max(0, query.after + 1)
    end = len(messages) if query.before is None else max(first, min(query.before, len(messages)))
    places: Iterable[int] = range(first, end)
    if query.order is Order.DESC:
        places = reversed(range(first, end))
    wanted = (PlacedMessage(place, messages[place]) for place in places if _is_wanted(messages[place], query))
    return page_found(list(islice(wanted, query.limit + 1)), query.limit)


def page_found(found: Sequence[PlacedMessage], limit: int) -> MessagePage:
    """Cut a page from what was found: one more than `limit`, if there are more."""
    shown = tuple(found[:limit])
    return MessagePage(
        shown,
        len(found) > limit,
        next_cursor=shown[-1].cursor if shown else None,
        prev_cursor=shown[0].cursor if shown else None,
    )


def _is_wanted(message: Message, query: MessageQuery) -> bool:
    if query.visibility is not None and message.visibility is not query.visibility:
        return False
    return query.run_id is None or message.run_id == query.run_id


def page_of(items: Sequence[T], offset: int, limit: int) -> Page[T]:
    """Cut a page from everything that was found."""
    return Page(tuple(items[offset : offset + limit]), len(items), offset + limit < len(items))


def page_of_runs(records: Iterable[RunRecord], query: RunQuery) -> Page[RunRecord]:
    """Answer from run records, in any order."""
    found = sorted((record for record in records if run_matches(record, query)), key=run_age)
    return page_of(found, query.offset, query.limit)


def run_age(record: RunRecord) -> tuple[int, str]:
    """Sort runs by this, oldest first."""
    return record.created_at, record.run_id


def run_matches(record: RunRecord, query: RunQuery) -> bool:
    equal: Sequence[tuple[object, object]] = (
        (query.thread_id, record.thread_id),
        (query.parent_run_id, record.parent_run_id),
        (query.status, record.status),
        (query.termination_code, record.termination_code),
        (query.origin, record.origin),
    )
    return (
        all(wanted is None or wanted == found for wanted, found in equal)
        and _between(query.created_at_from, record.created_at, query.created_at_to)
        and _between(query.updated_at_from, record.updated_at, query.updated_at_to)
    )


def _between(first: int | None, value: int, last: int | None) -> bool:
    return (first is None or first <= value) and (last is None or value <= last)


def newest_active(records: Iterable[RunRecord]) -> RunRecord | None:
    """Give the newest run that is not done."""
    return max((record for record in records if record.status is not RunStatus.DONE), key=run_age, default=None)
