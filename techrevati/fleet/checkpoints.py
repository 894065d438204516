"""Checkpoints of `turn.session` in Redis: what `fleet.checkpoints` declares, and a worker's savers of it."""

from collections import OrderedDict
from dataclasses import dataclass

from techrevati.store.saver import Durability, KeyRing, RedisSaver
from techrevati.store.sync import SyncStore

REMEMBERED = 256
"""Tenants whose savers a worker keeps."""


@dataclass(frozen=True, slots=True)
class CheckpointSpec:
    """How long (s) and how many checkpoints of a thread are kept (None: for ever, all), and how safe they are."""

    ttl: float | None
    keep: int | None
    durability: Durability
    encryption: KeyRing | None


class Savers:
    """One process's savers, by tenant, over one connection that may block the caller for a round trip."""

    def __init__(self, store: SyncStore, fleet: str, spec: CheckpointSpec) -> None:
        self._store, self._fleet, self._spec = store, fleet, spec
        self._savers: OrderedDict[str, RedisSaver] = OrderedDict()

    def of(self, tenant: str) -> RedisSaver:
        """Give the saver of a tenant's threads."""
        saver = self._savers.get(tenant)
        if saver is None:
            spec = self._spec
            saver = self._savers[tenant] = RedisSaver(
                self._store,
                self._fleet,
                tenant=tenant,
                ttl=spec.ttl,
                keep=spec.keep,
                encryption=spec.encryption,
                durability=spec.durability,
            )
        self._savers.move_to_end(tenant)
        while len(self._savers) > REMEMBERED:
            self._savers.popitem(last=False)
        return saver

    def close(self) -> None:
        self._store.close()
