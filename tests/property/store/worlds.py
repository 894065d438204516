"""One partition on Redis and the same in memory: what is said to both has to come to the same."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from techrevati.store import doctor, picture, thread_calls
from techrevati.store.calls import Call
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.keys import PartitionKeys
from techrevati.store.sync import SyncStore
from techrevati.store.thread_calls import ForkSpec
from techrevati.store.twin.records import Partition
from techrevati.store.twin.scripts import speak

S = 1_000_000
BEGIN = 1_700_000_000 * S
# Sent again, at once or much later, these change nothing once they were accepted.
IDEMPOTENT = frozenset({"run_start", "run_fork", "turn_commit", "run_release", "step_end", "live_append", "inbox_put"})
# These change nothing when they are sent again at once.
REPEATABLE = IDEMPOTENT | {"run_claim", "step_begin", "run_cancel", "run_retry", "run_route", "thread_delete"}

# Time, and how often something was refused, go on whatever is sent.
COUNTED = frozenset({"clock", "fenced", "streams"})

nth = st.integers(0, 50)


def normal(value: Any) -> Any:
    """Give a reply without what does not matter: nil or "", int or its digits, the order of a hash."""
    if isinstance(value, list | tuple):
        return [normal(item) for item in value]
    return "" if value is None else str(value)


def differences(one: Any, other: Any, *names: str, path: str = "") -> list[str]:
    """Say where two records differ, field by field."""
    if one == other:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [(key, one.get(key), other.get(key)) for key in {**one, **other}]
    elif hasattr(type(one), "__slots__") and type(one) is type(other):
        kept = [name for name in type(one).__slots__ if name not in ("streams", "whole")]
        keys = [(name, getattr(one, name), getattr(other, name)) for name in kept]
    else:
        return [f"{path}: {names[0]} {one!r}, {names[1]} {other!r}"]
    return [line for key, a, b in keys for line in differences(a, b, *names, path=f"{path}.{key}")]


def reply_of(name: str, reply: Sequence[Any]) -> Any:
    said = list(reply)
    at = {"run_claim": 2, "turn_commit": 4}.get(name)
    if at is not None and len(said) > at and isinstance(said[at], list | tuple):
        grant = list(said[at])
        for place in (6, 7):
            flat = grant[place] or []
            grant[place] = sorted(zip(flat[::2], flat[1::2], strict=True))
        said[at] = grant
    return normal(said)


class Side:
    """A raw client: replies as they come."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self.now = BEGIN
        self.store = SyncStore(server.url, now_us=lambda: self.now)

    def say(self, call: Call[Any]) -> Any:
        return self.store.run(Call(call.script, call.keys, call.args, lambda reply: list(reply)))


class Worlds(RuleBasedStateMachine):
    """One partition on Redis, and the same in memory."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        self.side, self.now = side, BEGIN
        side.store.redis.flushall()
        self.keys = PartitionKeys("twins", 3)
        self.twin = Partition("twins", 3)
        self.ids = itertools.count(1)
        self.sent: list[tuple[Call[Any], int]] = []
        self.grants: list[tuple[str, str]] = []

    # Saying something to both.

    def say(self, call: Call[Any], *, again: bool = False) -> Any:
        self.side.now = self.now
        mine = reply_of(call.script, speak(self.twin, call, self.now))
        theirs = reply_of(call.script, self.side.say(call))
        assert theirs == mine, f"{call.script}{tuple(call.args)}\n redis {theirs}\n twin  {mine}"
        self.compare()
        if not again:
            self.sent.append((call, int(mine[0])))
            self._note_grant(call.script, mine)
        return mine

    def compare(self) -> None:
        real = picture.take(self.side.store, self.keys, contents=True)
        assert real == self.twin, "\n".join(differences(real, self.twin, "redis", "twin"))
        assert doctor.diagnose(real) == []

    def _note_grant(self, name: str, reply: Any) -> None:
        grant = reply[2] if name == "run_claim" and reply[0] == "1" else None
        grant = reply[4] if name == "turn_commit" and len(reply) > 4 and isinstance(reply[4], list) else grant
        if grant:
            self.grants.append((grant[0], grant[1]))

    def run_id(self, n: int) -> str:
        known = list(self.twin.runs)
        return known[-1 - n % len(known)] if known else "nobody"

    def grant(self, n: int) -> tuple[str, str]:
        """Mostly a live lease, the newest first; sometimes an old one."""
        live = [(run.id, run.token) for run in self.twin.runs.values() if run.is_leased]
        if live and n % 5:
            return live[n % len(live)]
        return self.grants[-1 - n % len(self.grants)] if self.grants else ("nobody", "1.x")

    # What any world may see.

    @precondition(lambda self: any(thread.version for thread in self.twin.threads.values()))
    @rule(
        n=nth,
        at=st.integers(0, 4),
        other=st.booleans(),
        turn=st.integers(1, 3),
        idem=st.sampled_from(("", "", "k3")),
        begin=st.sampled_from(("", "", "+5000000")),
        role=st.sampled_from(("writer", "editor")),
    )
    def fork(self, n: int, at: int, other: bool, turn: int, idem: str, begin: str, role: str) -> None:
        """Fork a thread at a version it has or had, or at what it never had."""
        grown = [thread for thread in self.twin.threads.values() if thread.version]
        thread = grown[-1 - n % len(grown)]
        version = max(0, thread.version - at) if at < 4 else thread.version + 1
        of = next((one for one in thread.versions if one.version == version), None)
        spec = ForkSpec(
            run_id=f"run{next(self.ids)}",
            tenant=thread.tenant,
            source=thread.id,
            version=version,
            commit="another" if other and at == 3 else of.commit if of else "",
            state='{"s":[]}',
            thread_id=f"fork{next(self.ids)}" if n % 7 else thread.id,
            role=role,
            agent=role,
            payload_digest="p",
            turn=turn,
            idem=idem,
            idem_key=idem,
            begin=begin,
            max_attempts=2,
            fields={"input": '{"a":[]}', "handed": "{}"} if other else {},
        )
        self.say(thread_calls.fork(self.keys, spec))

    @rule(n=nth, force=st.booleans(), limit=st.sampled_from((1, 2, 128)), known=st.sampled_from((True, False, False)))
    def delete(self, n: int, force: bool, limit: int, known: bool) -> None:
        """Delete a thread; mostly none is deleted, so that something lives to be tested."""
        owners = list(self.twin.threads)
        tenant, thread = owners[n % len(owners)] if owners and known else ("acme", "never")
        self.say(thread_calls.delete(self.keys, tenant, thread, force=force, limit=limit))

    @precondition(lambda self: self.sent)
    @rule()
    def send_again_at_once(self) -> None:
        call, code = self.sent[-1]
        before = copy.deepcopy(self.twin)
        granted = reply_has_grant(call, code)
        self.say(call, again=True)
        if call.script in REPEATABLE and code >= 0 and granted:
            assert self.changed(before) == [], (call.script, call.args, code, self.changed(before))

    @precondition(lambda self: self.sent)
    @rule(n=nth)
    def send_again_late(self, n: int) -> None:
        call, code = self.sent[-1 - n % len(self.sent)]
        before = copy.deepcopy(self.twin)
        self.say(call, again=True)
        if call.script in IDEMPOTENT and code >= 0 and not claims_on(call):
            assert self.changed(before) == [], (call.script, call.args, code, self.changed(before))

    def changed(self, before: Partition) -> list[str]:
        return [
            name
            for name in Partition.__slots__
            if name not in COUNTED and getattr(before, name) != getattr(self.twin, name)
        ]


def claims_on(call: Call[Any]) -> bool:
    return call.script == "turn_commit" and call.args[13] != ""


def reply_has_grant(call: Call[Any], code: int) -> bool:
    """A claim that found nothing may find something the next time; a deletion goes on with what is left."""
    if call.script == "thread_delete":
        return call.args[3] == 128
    if call.script == "run_claim":
        return code == 1
    return not claims_on(call)
