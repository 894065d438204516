"""What sessions tell the whole fleet: what `fleet.sinks` declares, and a worker's sinks of it, each thing told once.

    turn.session ──event, usage──▶ Told (key: run, turn, agent, what, how many-th) ──▶ RedisEventSink, RedisUsageSink

A turn that runs again, after a crash or a retry, tells the same things under the same keys: they count once.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from techrevati.fleet.turn import Turn
from techrevati.runtime.agent_events import AgentEvent
from techrevati.runtime.sinks import EventSink, NoopEventSink, NoopUsageSink, UsageSink
from techrevati.runtime.usage_tracking import UsageSnapshot
from techrevati.store.sinks import RedisEventSink, RedisUsageSink
from techrevati.store.sync import SyncStore

REMEMBERED = 256
"""Tenants whose sinks a worker keeps."""


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """Which sinks there are, how much is kept (`most` entries, `ttl` s) and how long (s) a key counts once."""

    events: bool
    usage: bool
    most: int
    ttl: float | None
    window: float


@dataclass(slots=True)
class _Keys:
    """Names for what a turn tells, the same when it runs again."""

    turn: Turn
    told: Counter[str] = field(default_factory=Counter)

    def next(self, what: str) -> str:
        self.told[what] += 1
        return f"{self.turn.run_id}:{self.turn.number}:{self.turn.agent}:{what}:{self.told[what]}"


class TurnEvents:
    """One turn's events, for the fleet's sink."""

    def __init__(self, sink: RedisEventSink, turn: Turn) -> None:
        self._sink, self._keys = sink, _Keys(turn)

    def emit(self, event: AgentEvent) -> None:
        self._sink.emit_once(self._keys.next(event.event.value), event)


class TurnUsage:
    """One turn's usage, for the fleet's sink."""

    def __init__(self, sink: RedisUsageSink, turn: Turn) -> None:
        self._sink, self._keys = sink, _Keys(turn)

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        self._sink.record_once(self._keys.next(model), model, usage, cost_usd)


@dataclass(slots=True)
class _Pair:
    events: RedisEventSink | None
    usage: RedisUsageSink | None

    def close(self) -> None:
        for sink in (self.events, self.usage):
            if sink is not None:
                sink.close()


class Sinks:
    """One process's sinks, by tenant; what they are given is written by threads of their own."""

    def __init__(self, store: SyncStore, fleet: str, spec: SinkSpec) -> None:
        self._store, self._fleet, self._spec = store, fleet, spec
        self._pairs: OrderedDict[str, _Pair] = OrderedDict()

    def of(self, turn: Turn) -> tuple[EventSink, UsageSink]:
        """Give what a turn's session tells events and usage to."""
        pair = self._pair(turn.tenant)
        return (
            NoopEventSink() if pair.events is None else TurnEvents(pair.events, turn),
            NoopUsageSink() if pair.usage is None else TurnUsage(pair.usage, turn),
        )

    def _pair(self, tenant: str) -> _Pair:
        pair = self._pairs.get(tenant)
        if pair is None:
            pair = self._pairs[tenant] = self._made(tenant)
        self._pairs.move_to_end(tenant)
        while len(self._pairs) > REMEMBERED:
            self._pairs.popitem(last=False)  # whoever still tells it something has it; what it took is written
        return pair

    def _made(self, tenant: str) -> _Pair:
        spec, store, fleet = self._spec, self._store, self._fleet
        return _Pair(
            RedisEventSink(store, fleet, tenant=tenant, most=spec.most, ttl=spec.ttl, window=spec.window)
            if spec.events
            else None,
            RedisUsageSink(store, fleet, tenant=tenant, most=spec.most, ttl=spec.ttl, window=spec.window)
            if spec.usage
            else None,
        )

    def close(self) -> None:
        """Write what is left, and hang up; may block."""
        for pair in self._pairs.values():
            pair.close()
        self._store.close()
