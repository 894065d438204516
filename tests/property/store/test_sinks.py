"""The sink's script and its twin, side by side."""

import copy
import itertools
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from techrevati.store.calls import Call
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.records import pairs
from techrevati.store.sinks import calls
from techrevati.store.sinks.calls import Entry, SinkKeys, Stored
from techrevati.store.sync import SyncStore
from techrevati.store.twin.sinks import Sink, speak
from tests.property.store.conftest import profile
from tests.property.store.worlds import differences

S = 1_000_000
BEGIN = 1_700_000_000 * S
KEYS = SinkKeys("twins", "acme", "usage.default")
entries = st.builds(
    Entry,
    data=st.sampled_from(("{}", '{"a":[]}')),
    key=st.sampled_from(("", "", "k1", "k 2")),
    group=st.sampled_from(("", "m:1", "m 2")),
    sums=st.sampled_from(("", "turns:1 nanos:500", "turns:1 nanos:-7")),
)


def picture(store: SyncStore) -> Sink:
    """Read a sink from Redis."""
    head = pairs(store.command("HGETALL", KEYS.clock))
    totals = {name: int(value) for name, value in pairs(store.command("HGETALL", KEYS.totals)).items()}
    seen, writers = (
        {name: int(at) for name, at in pairs(store.command("ZRANGE", key, 0, -1, "WITHSCORES")).items()}
        for key in (f"{KEYS.clock}:seen", f"{KEYS.clock}:writers")
    )
    batches = pairs(store.command("HGETALL", f"{KEYS.clock}:batches"))
    assert set(batches) == set(writers)
    log = [Stored.parse(entry) for entry in store.command("XRANGE", KEYS.log, "-", "+")]
    return Sink(
        clock=int(head.get("us", 0)),
        seq=int(head.get("seq", 0)),
        log=[(entry.number, entry.at, entry.group, entry.data) for entry in log],
        totals=totals,
        seen=seen,
        writers={name: (at, int(batches[name])) for name, at in writers.items()},
    )


class BothSinks(RuleBasedStateMachine):
    """One sink on Redis, and the same in memory."""

    def __init__(self, store: SyncStore, clock: list[int]) -> None:
        super().__init__()
        self.store, self.clock, self.now = store, clock, BEGIN
        store.redis.flushall()
        self.twin = Sink()
        self.numbers = itertools.count(1)
        self.sent: list[Call[Any]] = []
        self.kept: dict[str, set[str]] = {}
        """Writer -> its batches that came since it was last forgotten."""

    def say(self, call: Call[Any]) -> None:
        writer, batch = map(str, call.args[:2])
        if writer not in self.twin.writers:
            self.kept[writer] = set()
        self.kept[writer].add(batch)
        self.clock[0] = self.now
        theirs = self.store.run(Call(call.script, call.keys, call.args, lambda reply: list(reply)))
        mine = speak(self.twin, call, self.now)
        assert [str(x) for x in theirs] == [str(x) for x in mine], f"{call.script}{tuple(call.args)}"
        real = picture(self.store)
        assert real == self.twin, "\n".join(differences(real, self.twin, "redis", "twin"))

    @rule(writer=st.sampled_from(("w1", "w2")), batch=st.lists(entries, max_size=5))
    def write(self, writer: str, batch: list[Entry]) -> None:
        call = calls.write(KEYS, writer, next(self.numbers), batch, most=10_000, ttl_ms=0, window_us=60 * S)
        self.say(call)
        self.sent.append(call)

    @precondition(lambda self: self.sent)
    @rule(n=st.integers(0, 5))
    def send_again(self, n: int) -> None:
        """A reply was lost: while its writer is remembered, a batch counts once."""
        call = self.sent[-1 - n % len(self.sent)]
        writer, batch = map(str, call.args[:2])
        before, known = copy.deepcopy(self.twin), writer in self.twin.writers and batch in self.kept[writer]
        self.say(call)
        if known:
            before.clock = self.twin.clock
            assert before == self.twin

    @rule(seconds=st.sampled_from((0.001, 0.02, 10.0, 61.0, -30.0)))
    def pass_time(self, seconds: float) -> None:
        self.now += round(seconds * S)


def test_sink_script_and_twin_say_and_do_the_same(server: EmbeddedRedis) -> None:
    clock = [BEGIN]
    with SyncStore(server.url, now_us=lambda: clock[0]) as store:
        run_state_machine_as_test(lambda: BothSinks(store, clock), settings=profile())  # type: ignore[arg-type]


def test_batches_of_a_writer_that_was_forgotten_count_anew_and_then_once(server: EmbeddedRedis) -> None:
    clock, entry = [BEGIN], Entry(data="{}", key="", group="", sums="")
    with SyncStore(server.url, now_us=lambda: clock[0]) as store:
        both = BothSinks(store, clock)
        both.write("w1", [entry])
        both.write("w1", [entry])
        both.pass_time(61.0)
        both.write("w2", [])
        for n in (2, 1, 2, 1):  # the first of w1, the second, and both once more
            both.send_again(n)
        assert both.twin.seq == 4
