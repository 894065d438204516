"""Events and usage of a whole fleet, on Redis.

    session ──emit, record──▶ Writer ──batches──▶ Redis ──events(after=…), totals()──▶ anyone

Where the single-process sinks stand: ``emit`` and ``record`` take what sessions give, in async sessions too, and
never wait for Redis.  `emit_once` and `record_once` take a key: what is delivered again with it counts once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec

from techrevati.runtime.agent_events import AgentEvent
from techrevati.runtime.usage_tracking import UsageSnapshot
from techrevati.store.sinks.calls import Entry, SinkKeys, Stored
from techrevati.store.sinks.writer import OnTrouble, Writer
from techrevati.store.sync import SyncStore

MOST = 100_000
TTL = 30 * 86_400.0
WINDOW = 86_400.0
NANOS = 1_000_000_000
COST_MAX = 50_000  # USD of one turn: a batch of them is still exact in Lua


@dataclass(frozen=True, slots=True)
class Page:
    """Entries after a place; `after` is the place behind them, `lost` how many were trimmed before they were read."""

    entries: tuple[Stored, ...]
    after: int
    lost: int


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """What one turn used, as it was recorded."""

    number: int
    model: str
    usage: UsageSnapshot
    cost_usd: float


class _Sink:
    """What both sinks are: a writer, and pages of what was written.

    `most` bounds the stream, `ttl` (s) is how long a sink is kept without use, `window` (s) how long keys count
    once; `every` (s) and `room` (entries) bound what a killed process, or a Redis that is away, can lose.
    """

    def __init__(
        self,
        store: SyncStore | str,
        fleet: str,
        *,
        name: str = "default",
        tenant: str = "default",
        most: int = MOST,
        ttl: float | None = TTL,
        window: float = WINDOW,
        every: float = 0.1,
        room: int = 10_000,
        on_trouble: OnTrouble | None = None,
    ) -> None:
        self._store = SyncStore(store) if isinstance(store, str) else store
        self._owns_store = isinstance(store, str)
        self._writer = Writer(
            self._store,
            SinkKeys(fleet, tenant, f"{self._kind}.{name}"),
            most=most,
            ttl=ttl,
            window=window,
            every=every,
            room=room,
            on_trouble=on_trouble,
        )

    _kind = "sink"

    @property
    def dropped(self) -> int:
        """Entries of this process that found no room while Redis was away."""
        return self._writer.dropped

    @property
    def waiting(self) -> int:
        """Entries of this process that are not written yet."""
        return self._writer.waiting

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was taken is written; False if it was not within `timeout` seconds."""
        return self._writer.flush(timeout)

    def page(self, after: int = 0, limit: int = 100) -> Page:
        """Read at most `limit` entries behind number `after`, of every process."""
        if limit <= 0:
            return Page((), after, 0)
        keys = self._writer.keys
        found = self._store.command("XRANGE", keys.log, f"({after}-0" if after else "-", "+", "COUNT", limit)
        entries = tuple(map(Stored.parse, found))
        lost = entries[0].number - after - 1 if entries else 0
        return Page(entries, entries[-1].number if entries else after, lost)

    def close(self) -> None:
        """Write what is left and hang up."""
        self._writer.close()
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RedisEventSink(_Sink):
    """Events of every process of a fleet, in one order, numbered without gaps."""

    _kind = "events"

    def emit(self, event: AgentEvent) -> None:
        """Take an event; it is written within `every` seconds."""
        self.emit_once("", event)

    def emit_once(self, key: str, event: AgentEvent) -> None:
        """Take an event that may be delivered again: of those with one key the first counts."""
        self._writer.add(Entry(event.to_json(), key, event.role or ""))

    def events(self, *, after: int = 0, limit: int = 100) -> list[tuple[int, AgentEvent]]:
        """Read events behind number `after`, with their numbers, oldest first."""
        return [(entry.number, AgentEvent.from_json(entry.data)) for entry in self.page(after, limit).entries]

    def replay(self, *, limit: int | None = None) -> Iterator[AgentEvent]:
        """Events that are kept, from the first on, at most `limit` of them."""
        after, left = 0, limit
        while left is None or left > 0:
            page = self.page(after, 500 if left is None else min(500, left))
            if not page.entries:
                return
            yield from (AgentEvent.from_json(entry.data) for entry in page.entries)
            after, left = page.after, None if left is None else left - len(page.entries)


class RedisUsageSink(_Sink):
    """Usage and cost of every process of a fleet; totals are exact to the billionth of a dollar."""

    _kind = "usage"

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        """Take what a turn used; it is written within `every` seconds."""
        self.record_once("", model, usage, cost_usd)

    def record_once(self, key: str, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        """Take what a turn used, that may be recorded again: of those with one key the first counts.

        Raises:
            ValueError: the cost is not a finite number.
        """
        if not abs(cost_usd) < COST_MAX:
            raise ValueError(f"cost {cost_usd} USD of a turn is not a number below {COST_MAX:,}")
        sums = f"turns:1 nanos:{round(cost_usd * NANOS)} input:{usage.input_tokens} output:{usage.output_tokens}"
        data = msgspec.json.encode({"model": model, "cost_usd": cost_usd, "usage": usage.to_dict()}).decode()
        self._writer.add(Entry(data, key, model, sums))

    def totals(self, model: str | None = None) -> dict[str, Any]:
        """``{"turns", "total_cost_usd", "input_tokens", "output_tokens"}`` of all models, or of one."""
        behind = "" if model is None else f":{model}"
        names = [f"{name}{behind}" for name in ("turns", "nanos", "input", "output")]
        turns, nanos, request, response = (
            int(value or 0) for value in self._store.command("HMGET", self._writer.keys.totals, *names)
        )
        return {
            "turns": turns,
            "total_cost_usd": nanos / NANOS,
            "input_tokens": request,
            "output_tokens": response,
        }

    def records(self, *, after: int = 0, limit: int = 100) -> list[UsageRecord]:
        """Read records behind number `after`, oldest first."""
        found = []
        for entry in self.page(after, limit).entries:
            data = msgspec.json.decode(entry.data)
            usage = UsageSnapshot.from_dict(data["usage"])
            found.append(UsageRecord(entry.number, data["model"], usage, data["cost_usd"]))
        return found
