"""A desk to test at: one partition on a real Redis, with a hand on its clock."""

import itertools
from collections.abc import Sequence
from typing import Any

from techrevati.store import calls, doctor, picture, thread_calls
from techrevati.store.calls import ClaimSpec, CommitSpec, StartSpec, Suspended
from techrevati.store.keys import PartitionKeys
from techrevati.store.records import Claimed, Committed, Deleted, Grant, OnBusy, Started, Swept
from techrevati.store.sync import SyncStore
from techrevati.store.thread_calls import ForkSpec
from techrevati.store.twin.records import Partition, Role, Run, Thread

S = 1_000_000
BEGIN = 1_700_000_000 * S
TTL = 15 * S


class Desk:
    """Says short things to the store; every answer is checked against the invariants at the end of a test."""

    def __init__(self, url: str, fleet: str) -> None:
        self.now = BEGIN
        self.keys = PartitionKeys(fleet, 3)
        self.store = SyncStore(url, now_us=lambda: self.now, patience=5.0)
        self.rung: list[str] = []
        self.store.ring = lambda _partition, roles: self.rung.extend(roles)
        self._ids = itertools.count(1)

    def id(self, kind: str = "id") -> str:
        return f"{kind}{next(self._ids)}"

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * S)

    def start(
        self,
        run_id: str = "",
        thread: str = "essay",
        *,
        tenant: str = "acme",
        role: str = "writer",
        on_busy: OnBusy = OnBusy.ENQUEUE,
        messages: bool = True,
        idem: str = "",
        payload: str = "p",
        begin: str = "",
        deadline: str = "",
        priority: int = 0,
        attempts: int = 3,
        parent: str = "",
        parent_token: str = "",
        line_max: int = calls.LINE_MAX,
        **fields: str,
    ) -> Started:
        spec = StartSpec(
            run_id=run_id or self.id("run"),
            tenant=tenant,
            thread_id=thread,
            role=role,
            agent=role,
            payload_digest=payload,
            on_busy=on_busy,
            has_messages=messages,
            idem=idem,
            idem_key=idem,
            begin=begin,
            deadline=deadline,
            priority=priority,
            max_attempts=attempts,
            parent=parent,
            parent_token=parent_token,
            line_max=line_max,
            fields=fields,
        )
        return self.store.run(calls.start(self.keys, spec))

    def spec(self, claim_id: str = "", *, role: str = "writer", worker: str = "w1", **more: Any) -> ClaimSpec:
        more.setdefault("ttl_us", TTL)
        more.setdefault("from_ticket", False)
        return ClaimSpec(role=role, claim_id=claim_id or self.id("claim"), worker=worker, **more)

    def ask(self, claim_id: str = "", **more: Any) -> Claimed:
        return self.store.run(calls.claim(self.keys, self.spec(claim_id, **more)))

    def claim(self, claim_id: str = "", **more: Any) -> Grant:
        grant = self.ask(claim_id, **more).grant
        assert grant is not None, "nothing to claim"
        return grant

    def commit(self, grant: Grant, move: str = "continue", *, then: ClaimSpec | None = None, **more: Any) -> Committed:
        more.setdefault("worker", "w1")
        spec = CommitSpec(run_id=grant.run_id, token=grant.token, move=move, **more)
        return self.store.run(calls.commit(self.keys, spec, then))

    def suspend(self, grant: Grant, *asks: Suspended, **more: Any) -> Committed:
        return self.commit(grant, "suspend", calls=asks, body='[{"call_id":"c"}]', **more)

    def decide(self, run_id: str, call_id: str, entry: str = "", body: str = '{"action":"resume"}') -> bool:
        entry = entry or self.id("decision")
        return self.store.run(calls.inbox_put(self.keys, run_id, entry, "decision", call_id, body))

    def steer(self, run_id: str, entry: str = "", body: str = '"look left"') -> bool:
        return self.store.run(calls.inbox_put(self.keys, run_id, entry or self.id("steer"), "steer", "", body))

    def release(self, grant: Grant, journal: Sequence[tuple[str, str]] = ()) -> bool:
        return self.store.run(calls.release(self.keys, grant.run_id, grant.token, journal))

    def renew(self, *grants: Grant, ttl: int = TTL) -> list[int]:
        return self.store.run(calls.renew(self.keys, ttl, [(grant.run_id, grant.token) for grant in grants]))

    def cancel(self, run_id: str, reason: str = "enough", grace: float = 10.0) -> str:
        return self.store.run(calls.cancel(self.keys, run_id, reason, round(grace * S)))

    def retry(self, run_id: str) -> str:
        return self.store.run(calls.retry(self.keys, run_id))

    def fork(self, version: int, thread: str = "essay", to: str = "", *, tenant: str = "acme", **more: Any) -> Started:
        kept = {} if tenant != "acme" else {one.version: one for one in self.thread(thread).versions}
        more.setdefault("run_id", self.id("run"))
        more.setdefault("commit", kept[version].commit if version in kept else "")
        more.setdefault("state", '{"forked":true}')
        more.setdefault("fields", {})
        spec = ForkSpec(
            tenant=tenant,
            source=thread,
            version=version,
            thread_id=to or self.id("fork"),
            role="writer",
            agent="writer",
            payload_digest="p",
            **more,
        )
        return self.store.run(thread_calls.fork(self.keys, spec))

    def delete(self, thread: str = "essay", *, tenant: str = "acme", force: bool = False, limit: int = 128) -> Deleted:
        return self.store.run(thread_calls.delete(self.keys, tenant, thread, force=force, limit=limit))

    def route(self, run_id: str, hop: int, action: str, **more: str) -> bool:
        return self.store.run(calls.route(self.keys, run_id, hop, action, **more))

    def sweep(self, **more: Any) -> Swept:
        return self.store.run(calls.sweep(self.keys, **more))

    def beat(self, role: str = "writer", worker: str = "w1", places: int = 4, template: str = "") -> tuple[int, int]:
        return self.store.run(calls.pool_beat(self.keys, role, worker, places, template))

    def whole(self) -> Partition:
        return picture.take(self.store, self.keys, contents=True)

    def see(self, run_id: str) -> Run:
        return self.whole().runs[run_id]

    def thread(self, thread: str = "essay", tenant: str = "acme") -> Thread:
        return self.whole().threads[tenant, thread]

    def role(self, role: str = "writer") -> Role:
        return self.whole().roles[role]

    def kinds(self, run_id: str) -> list[str]:
        return [event.type for event in self.see(run_id).events]

    def keys_like(self, pattern: str) -> list[str]:
        return sorted(self.store.redis.scan_iter(match=pattern))

    def well(self) -> list[str]:
        """Give what the doctor says of this partition; [] is healthy."""
        found = doctor.diagnose(self.whole()) + doctor.orphans(self.store, self.keys.fleet)
        return [str(finding) for finding in found]
