"""Listing runs: the newest first, a page at a time.

indexes of all partitions (or of one thread) ──merge by age──▶ records ──filter──▶ RunPage, and where to go on
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypeAlias, TypedDict

from techrevati.fleet.asking import Plan
from techrevati.runtime.errors import TechrevatiError
from techrevati.store.calls import Arg
from techrevati.store.keys import PartitionKeys, check_tenant, partition_of
from techrevati.store.records import RunRecord, Status, pairs

CHUNK = 128
LOOKED = 5000
"""Runs one page looks at, at most: a filter that hardly fits makes short pages, not slow ones."""

Place: TypeAlias = tuple[int, str]
"""When a run was created (us), and its id: the order of a listing."""


class BadPageCursor(TechrevatiError):
    """`after` is not where a page ended."""

    def __init__(self, cursor: str) -> None:
        super().__init__(cursor)
        self.cursor = cursor

    def __str__(self) -> str:
        return f"cursor {self.cursor!r} is refused: pass the `cursor` of the page before"


class ListOptions(TypedDict, total=False):
    """Which runs a listing wants; what is left out is any."""

    status: str | Sequence[str] | None
    tenant: str | None
    role: str | None
    thread_id: str | None
    """With `tenant` too, only that thread's own index is read."""
    created_after: datetime | None
    created_before: datetime | None
    calls: bool
    """Calls of tools in pools of their own as well, each a run of agent ``tool:<id>``.  False."""


def _moment(value: datetime | None, name: str) -> int | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError(f"{name}={value!r} has no time zone; fix: datetime(…, tzinfo=UTC)")
    return round(value.timestamp() * 1e6)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a listing wants; None is any, times are us since the epoch."""

    statuses: frozenset[str] | None
    tenant: str | None
    role: str | None
    thread_id: str | None
    since: int | None
    until: int | None
    calls: bool = False

    @classmethod
    def of(cls, options: ListOptions) -> Self:
        """Check what was asked for.

        Raises:
            ValueError, BadName: naming what is wrong.
        """
        status = options.get("status")
        names = [status] if isinstance(status, str) else status
        for name in names or ():
            if name not in list(Status):
                raise ValueError(f"status {name!r} is unknown; use {', '.join(Status)}")
        tenant = options.get("tenant")
        return cls(
            frozenset(names) if names else None,
            None if tenant is None else check_tenant(tenant),
            options.get("role"),
            options.get("thread_id"),
            _moment(options.get("created_after"), "created_after"),
            _moment(options.get("created_before"), "created_before"),
            options.get("calls", False),
        )

    def fits(self, record: RunRecord) -> bool:
        return (
            (self.statuses is None or record.status.value in self.statuses)
            and self.tenant in (None, record.tenant)
            and self.role in (None, record.role)
            and self.thread_id in (None, record.thread_id)
            and (self.calls or not record.is_call)
        )


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, the newest first, and the cursor of those after them (None: there are no more)."""

    runs: list[RunRecord]
    cursor: str | None


@dataclass(slots=True)
class _Index:
    """One index of runs, read downwards; what is read and not yet used waits in `found`."""

    keys: PartitionKeys
    name: str
    top: int | None
    bottom: int | None
    below: Place | None
    skip: int = 0
    over: bool = False
    found: deque[Place] = field(default_factory=deque)

    def reading(self) -> Sequence[Arg]:
        top, bottom = ("+inf" if self.top is None else self.top), ("-inf" if self.bottom is None else self.bottom)
        return ("ZREVRANGEBYSCORE", self.name, top, bottom, "WITHSCORES", "LIMIT", self.skip, CHUNK)

    def take(self, reply: Sequence[str]) -> None:
        places = [(int(float(score)), run_id) for run_id, score in pairs(reply).items()]
        self.found.extend(place for place in places if self.below is None or place < self.below)
        if len(places) < CHUNK:
            self.over = True
            return
        last = places[-1][0]  # the next reading begins at this time, behind those seen that have it too
        same = sum(created == last for created, _ in places)
        self.skip = same + (self.skip if last == self.top else 0)
        self.top = last


def listing(fleet: str, partitions: int, wanted: RunFilter, after: str | None, limit: int) -> Plan[RunPage]:
    """Read the newest `limit` runs that fit, behind the cursor of the page before.

    Raises:
        BadPageCursor, ValueError.
    """
    if limit < 1:
        raise ValueError(f"limit={limit} is refused: give 1 or more")
    below = _parse(after)
    top = wanted.until if below is None else below[0] if wanted.until is None else min(below[0], wanted.until)
    indexes = [_Index(keys, name, top, wanted.since, below) for keys, name in _indexes(fleet, partitions, wanted)]
    kept: list[RunRecord] = []
    place, looked = below, 0
    while True:
        dry = [index for index in indexes if not index.found and not index.over]
        if dry:
            for index, reply in zip(dry, (yield [index.reading() for index in dry]), strict=True):
                index.take(reply)
            continue
        batch: list[tuple[Place, PartitionKeys]] = []
        while len(batch) < CHUNK and all(index.found or index.over for index in indexes):
            newest = max((index for index in indexes if index.found), key=lambda index: index.found[0], default=None)
            if newest is None:
                break
            batch.append((newest.found.popleft(), newest.keys))
        if not batch:
            return RunPage(kept, None)
        replies = yield [("HGETALL", keys.run(run_id)) for (_, run_id), keys in batch]
        for (place, _), flat in zip(batch, replies, strict=True):
            looked += 1
            record = record_of(place[1], flat)
            if record is not None and wanted.fits(record):
                kept.append(record)
                if len(kept) == limit:
                    return RunPage(kept, f"{place[0]}~{place[1]}")
        if looked >= LOOKED:
            return RunPage(kept, f"{place[0]}~{place[1]}" if place else None)


def reading_children(keys: PartitionKeys, run_id: str) -> Plan[list[RunRecord]]:
    """Read the sub-agents of a run that are still known, the oldest first."""
    (ids,) = yield [("SMEMBERS", keys.kids(run_id))]
    ids = sorted(ids)
    found = yield [("HGETALL", keys.run(child)) for child in ids]
    records = (record_of(child, flat) for child, flat in zip(ids, found, strict=True))
    known = [record for record in records if record is not None and not record.is_call]
    return sorted(known, key=lambda record: (record.created or 0.0, record.run_id))


def _indexes(fleet: str, partitions: int, wanted: RunFilter) -> list[tuple[PartitionKeys, str]]:
    if wanted.thread_id is not None and wanted.tenant is not None:
        keys = PartitionKeys(fleet, partition_of(wanted.tenant, wanted.thread_id, partitions))
        return [(keys, keys.runsof(wanted.tenant, wanted.thread_id))]
    every = [PartitionKeys(fleet, number) for number in range(partitions)]
    return [(keys, keys.runs) for keys in every]


def _parse(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    created, _, run_id = cursor.partition("~")
    if not created.isdigit() or not run_id:
        raise BadPageCursor(cursor)
    return int(created), run_id


def record_of(run_id: str, flat: Sequence[Any]) -> RunRecord | None:
    """Read a run's hash; None if there is none, or only the tombstone of a deleted one."""
    fields = pairs(flat)
    return RunRecord.parse(run_id, fields) if "tenant" in fields else None
