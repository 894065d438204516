"""A gate's scripts and their twin, side by side: the same calls, the same replies, the same record, step by step."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from techrevati.store.calls import Call
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import calls
from techrevati.store.gates.keys import GateKeys
from techrevati.store.gates.records import FOR_EVER, Ask
from techrevati.store.gates.spec import BreakerSpec, BucketSpec, GateSpec, SlotSpec
from techrevati.store.gates.terms import Terms
from techrevati.store.twin.gate_state import Gate
from techrevati.store.twin.gates import speak
from tests.property.store import gate_picture
from tests.property.store.conftest import profile
from tests.property.store.worlds import BEGIN, Side, differences, normal

S = 1_000_000
WORKERS, TENANTS, BOOKINGS = ("w1", "w2", "w3"), ("acme", "zeta"), ("r1/1", "r2/1", "r3/1", "r4/1")
TIGHT = BreakerSpec(failure_threshold=3, cooldown=2.0, cooldown_max=7.0, probes=2, ramp=(1.0, 5.0), ramp_stage=2.0)

SPECS = (
    GateSpec(name="g", breaker=TIGHT),
    GateSpec(
        name="g",
        breaker=BreakerSpec(failure_threshold=2, min_reporters=2, cooldown=3.0, probes_to_close=2, slow_call=1.0),
        buckets=(BucketSpec("rpm", 10, 1 / 6), BucketSpec("input_tpm", 1000, 100 / 3)),
    ),
    GateSpec(
        name="g",
        breaker=BreakerSpec(
            mode="rate", failure_rate=0.5, min_calls=4, window=5.0, slow_call=1.0, slow_rate=0.6, min_reporters=2
        ),
        buckets=(BucketSpec("rpm", 3, 7.0),),
        slots=SlotSpec(most=4, adaptive=True),
        shares={"acme": 3.0},
        horizon=0.5,
    ),
    GateSpec(
        name="g",
        buckets=(BucketSpec("rpm", 5, 2.0), BucketSpec("output_tpm", 100, 7.3)),
        shares={"acme": 1.0, "zeta": 2.0},
        horizon=1.0,
    ),
    GateSpec(name="g", slots=SlotSpec(most=2), horizon=None),
    GateSpec(name="g", breaker=TIGHT, buckets=(BucketSpec("rpm", 10, 2.0),), slots=SlotSpec(most=3), revision=1),
)
# Who is let out, booked or refused anew may be something else; an answer that was given stays.
IDEMPOTENT = frozenset({"gate_settle", "gate_cancel"})


class BothWorlds(RuleBasedStateMachine):
    """One gate on Redis, and the same in memory."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        self.side, self.now = side, BEGIN
        side.store.redis.flushall()
        self.keys, self.twin = GateKeys("twins", "g"), Gate()
        self.ids = itertools.count(1)
        self.terms: Terms | None = None
        self.sent: list[tuple[Call[Any], Any]] = []
        self.sent_at = BEGIN
        self.out: list[tuple[str, str, int]] = []
        self.listener = side.store.redis.pubsub(ignore_subscribe_messages=True)
        self.twin.ears = frozenset({"e1"})
        self.listener.subscribe(self.keys.news, self.keys.ear("e1"))
        while self.listener.get_message(timeout=0.01) is not None:
            pass

    def teardown(self) -> None:
        self.listener.close()

    def say(self, call: Call[Any]) -> Any:
        self.side.now = self.now
        said, whispered = len(self.twin.said), len(self.twin.whispered)
        mine = speak(self.twin, call, self.now)
        theirs = self.side.say(call)
        assert normal(theirs) == normal(mine), f"{call.script}{tuple(call.args)}\n redis {theirs}\n twin  {mine}"
        self.compare(said, whispered)
        return mine

    def compare(self, said: int, whispered: int) -> None:
        real, twin = gate_picture.take(self.side.store, self.keys), copy.deepcopy(self.twin)
        told = [(self.keys.news, text) for text in twin.said[said:]]
        told += [(self.keys.ear(ear), text) for ear, text in twin.whispered[whispered:] if ear == "e1"]
        twin.said, twin.whispered, twin.ears, twin.minimum = [], [], None, None
        # What is gone counts as nothing on both sides.
        twin.sums = {name: value for name, value in twin.sums.items() if value or name in real.sums}
        assert real == twin, "\n".join(differences(real, twin, "redis", "twin"))
        heard = [
            (message["channel"], message["data"])
            for message in iter(lambda: self.listener.get_message(timeout=0), None)
        ]
        for _ in range(100):
            if len(heard) >= len(told):
                break
            if (message := self.listener.get_message(timeout=0.02)) is not None:
                heard.append((message["channel"], message["data"]))
        assert sorted(heard, key=lambda one: one[0]) == sorted(told, key=lambda one: one[0])

    def kept(self, call: Call[Any]) -> Any:
        reply = self.say(call)
        self.sent.append((call, reply))
        self.sent_at = max(self.now, self.twin.clock)
        return reply

    @initialize(spec=st.sampled_from(SPECS))
    def begin(self, spec: GateSpec) -> None:
        self.declare(spec, "w1", False)

    @rule(spec=st.sampled_from(SPECS), by=st.sampled_from(WORKERS), often=st.integers(0, 7))
    def declare_again(self, spec: GateSpec, by: str, often: int) -> None:
        assert self.terms is not None
        self.declare(spec if often == 7 else self.terms.spec, by, False)

    def declare(self, spec: GateSpec, by: str, lost: bool) -> None:
        reply = self.kept(calls.declare(self.keys, spec, by, lost=lost, open_us=S if lost else 0))
        told = calls._declared(reply)
        if told.taken:
            self.out = self.out[-3:]
        stands = spec.adopt(told.stands.text, told.stands.revision)
        self.terms = Terms(self.keys, stands, told.version, told.epoch)

    @rule(
        holder=st.sampled_from(WORKERS),
        tenant=st.sampled_from(TENANTS),
        priority=st.integers(-1, 1),
        booking=st.sampled_from(("", "", "mine", *BOOKINGS)),
        wait=st.sampled_from((0, 0, S // 2, 10 * S)),
        reach=st.sampled_from((0, 3 * S, FOR_EVER)),
        share=st.tuples(st.sampled_from((0.0, 0.3, 1.0)), st.sampled_from((0.0, 0.1, 0.37, 1.0))),
        lease=st.sampled_from((S, 8 * S)),
        ear=st.sampled_from(("e1", "e1", "gone")),
    )
    def admit(self, share: tuple[float, float], booking: str, lease: int, wait: int, reach: int, **who: Any) -> None:
        assert self.terms is not None
        call_id = f"c{next(self.ids)}"
        buckets = sorted(self.terms.spec.buckets, key=lambda bucket: bucket.name)
        costs = {bucket.name: bucket.capacity * part for bucket, part in zip(buckets, share, strict=False)}
        ask = Ask(
            call_id=call_id,
            lease_us=lease,
            max_wait_us=wait,
            reach_us=reach,
            booking=call_id if booking == "mine" else booking,
            **who,
        )
        reply = self.kept(self.terms.admit(ask, costs))
        if reply[0] == 1:
            self.out.append((call_id, ask.holder, reply[7]))

    @precondition(lambda self: self.terms is not None and self.terms.spec.buckets)
    @rule(
        lane=st.sampled_from(("l1", "l2")),
        number=st.integers(-1, 1),
        part=st.sampled_from((0.1, 0.3, 1.0)),
        times=st.integers(1, 3),
    )
    def take(self, lane: str, number: int, part: float, times: int) -> None:
        """Who takes of one bucket; a number is new, or the last one, or an older one that comes late."""
        assert self.terms is not None
        bucket = self.terms.spec.buckets[0]
        for _ in range(times):
            last = self.twin.lanes.get(lane, (0, 0))[0]
            before = copy.deepcopy(self.twin)
            reply = self.say(self.terms.take(bucket.name, bucket.capacity * part, lane, max(1, last + number)))
            if reply[0] != 0 or number <= 0 < last:
                assert self.changed(before) == []

    @precondition(lambda self: self.out)
    @rule(
        n=st.integers(0, 20),
        outcome=st.sampled_from(("ok", "ok", "fail", "fail", "none")),
        slow=st.booleans(),
        overload=st.booleans(),
        latency=st.sampled_from((0, 400_000, 3 * S)),
        back=st.sampled_from((0.0, 0.5, -3.25, 700.0)),
    )
    def settle(self, n: int, outcome: str, back: float, latency: int, **how: bool) -> None:
        call_id, holder, generation = self.out[-1 - n % len(self.out)]
        self._settle(call_id, holder, generation, outcome, latency, back, **how)

    def _settle(
        self, call_id: str, holder: str, generation: int | None, outcome: str, latency: int, back: float, **how: bool
    ) -> None:
        assert self.terms is not None
        given = {bucket.name: back for bucket in self.terms.spec.buckets}
        call = self.terms.settle(
            call_id, holder, generation=generation, outcome=outcome, latency_us=latency, back=given, **how
        )
        self.kept(call)

    @rule(
        worker=st.sampled_from(WORKERS),
        outcome=st.sampled_from(("ok", "fail", "fail", "fail")),
        by_hand=st.booleans(),
        times=st.integers(1, 4),
    )
    def report(self, worker: str, outcome: str, by_hand: bool, times: int) -> None:
        """Calls that were let out by a local view, or are recorded by hand."""
        for _ in range(times):
            generation = None if by_hand else self.twin.generation
            self._settle(f"c{next(self.ids)}", worker, generation, outcome, 0, 0.0)

    @precondition(lambda self: self.twin.bookings)
    @rule(
        n=st.integers(0, 5), late=st.sampled_from((-1, 0, 0, 400_000, 6 * S, 90 * S)), share=st.sampled_from((0.3, 0.1))
    )
    def come_back(self, n: int, late: int, share: float) -> None:
        """Whoever booked comes when it was told to, or nearly."""
        booking = list(self.twin.bookings)[-1 - n % len(self.twin.bookings)]
        record = self.twin.bookings[booking].split(" ")
        if record[0] != "l":
            self.now = max(self.now, int(record[1]) + late)
        who = {"holder": "w2", "tenant": "acme", "priority": 0}
        self.admit((share, 0.1), booking, S, 0, FOR_EVER, **who)

    @precondition(lambda self: self.terms is not None and self.terms.spec.buckets)
    @rule(n=st.integers(2, 6), part=st.sampled_from((0.3, 1.0)))
    def many_book(self, n: int, part: float) -> None:
        for i in range(n):
            who = {"holder": WORKERS[i % 3], "tenant": TENANTS[i % 2], "priority": i % 2}
            self.admit((part, part), f"b{next(self.ids)}", S, 0, FOR_EVER, **who)

    @precondition(lambda self: self.terms is not None and self.terms.spec.slots is not None)
    @rule(
        n=st.integers(2, 6),
        part=st.sampled_from((0.0, 0.0, 0.3)),
        ears=st.sampled_from(("e1", "gone", "mixed")),
        parked=st.booleans(),
        wait=st.sampled_from((S, 30 * S)),
    )
    def many_wait_for_slots(self, n: int, part: float, ears: str, parked: bool, wait: int) -> None:
        for i in range(n):
            ear = ears if ears != "mixed" else "e1" if i % 2 else "gone"
            who = {"holder": WORKERS[i % 3], "tenant": TENANTS[i % 2], "priority": i % 3 // 2, "ear": ear}
            absent = parked and i % 2
            booking = f"p{next(self.ids)}" if absent else "mine"
            self.admit((part, part), booking, 8 * S, 0 if absent else wait, FOR_EVER, **who)

    @precondition(lambda self: self.twin.used)
    @rule(n=st.integers(1, 5), latency=st.sampled_from((0, 50_000, S)))
    def some_end(self, n: int, latency: int) -> None:
        """Calls under way end: their slots go to who waits."""
        held = [call for call, record in self.twin.calls.items() if record != "-" and record.split(":")[1] == "1"]
        for call in held[:n]:
            self._settle(call, "w1", self.twin.generation, "ok", latency, 0.0)

    @precondition(lambda self: self.terms is not None and self.terms.spec.breaker is not None)
    @rule(ends=st.lists(st.sampled_from(("ok", "ok", "fail", "none")), min_size=1, max_size=3), slow=st.booleans())
    def storm_and_probe(self, ends: list[str], slow: bool) -> None:
        """It fails until it opens; then, at its time, probes decide."""
        for worker in WORKERS * 3:
            if self.twin.state == 0 and self.twin.forced == 0:
                self._settle(f"c{next(self.ids)}", worker, self.twin.generation, "fail", 0, 0.0)
        if self.twin.state == 1:
            self.now = max(self.now, self.twin.until)
            for _ in ends:
                self.admit((0.0, 0.0), "", 8 * S, 0, 0, holder="w1", tenant="acme", priority=0)
            for end in ends:
                if self.out:
                    self._settle(*self.out[-1], end, 0, 0.0, slow=slow)
                    self.out.pop()

    @precondition(lambda self: self.twin.state == 1)
    @rule(n=st.integers(1, 3), part=st.sampled_from((0.0, 0.1)))
    def book_behind_an_open_breaker(self, n: int, part: float) -> None:
        for i in range(n):
            who = {"holder": WORKERS[i % 3], "tenant": TENANTS[i % 2], "priority": 0}
            self.admit((part, part), f"o{next(self.ids)}", S, 0, FOR_EVER, **who)

    @precondition(lambda self: self.twin.state == 1)
    @rule(outcome=st.sampled_from(("ok", "fail")), slow=st.booleans())
    def record_by_hand_while_it_is_open(self, outcome: str, slow: bool) -> None:
        self._settle(f"c{next(self.ids)}", "w1", None, outcome, 0, 0.0, slow=slow)

    @rule(
        ends=st.lists(st.tuples(st.sampled_from(WORKERS), st.sampled_from(("ok", "fail")), st.booleans()), max_size=9)
    )
    def traffic(self, ends: list[tuple[str, str, bool]]) -> None:
        for worker, outcome, slow in ends:
            self.now += S // 3
            self._settle(f"c{next(self.ids)}", worker, self.twin.generation, outcome, 0, 0.0, slow=slow)

    @rule(booking=st.sampled_from(BOOKINGS))
    def cancel(self, booking: str) -> None:
        assert self.terms is not None
        self.kept(self.terms.cancel(booking))

    @rule(
        hold=st.sampled_from((0, 0, S, 5 * S)),
        remaining=st.none() | st.sampled_from((0.0, 1.0, 50.0)),
        reset=st.none() | st.sampled_from((0, S, 30 * S)),
    )
    def feed(self, hold: int, remaining: float | None, reset: int | None) -> None:
        assert self.terms is not None
        told = {bucket.name: (remaining, reset) for bucket in self.terms.spec.buckets[:1]}
        self.kept(self.terms.feed(hold, told))

    @rule(what=st.sampled_from(("open", "close", "disable", "enable", "enable")))
    def force(self, what: str) -> None:
        self.kept(calls.force(self.keys, what, "operator"))

    @rule()
    def look(self) -> None:
        self.say(calls.look(self.keys))

    @rule()
    def old_terms_are_refused(self) -> None:
        assert self.terms is not None
        old = Terms(self.keys, self.terms.spec, "0:other:1", self.terms.epoch)
        assert self.say(old.cancel("r1/1"))[0] == -12

    @rule(seconds=st.sampled_from((0.001, 0.03, 0.25, 1.0, 2.0, 6.0, 11.0, 40.0, -2.0)))
    def pass_time(self, seconds: float) -> None:
        """Time goes on; after a failover the server's clock may step back."""
        self.now += round(seconds * S)

    @precondition(lambda self: self.sent and self.now - self.sent_at < S)
    @rule()
    def send_again_at_once(self) -> None:
        """As a client does that lost the reply, within the shortest lease."""
        call, first = self.sent[-1]
        before = copy.deepcopy(self.twin)
        second = self.say(call)
        settled_or_out = call.script == "gate_admit" and first[0] == 1
        if settled_or_out or call.script in IDEMPOTENT:
            assert self.changed(before) == [], (call.script, call.args, first, second)
        if settled_or_out:
            assert second[0] == 1
        if call.script == "gate_admit" and first[0] == 2:
            assert second[0] in (1, 2)

    @precondition(lambda self: self.sent)
    @rule(n=st.integers(0, 20))
    def send_again_soon(self, n: int) -> None:
        """Within what a client insists on, a call that was let out or settled changes nothing any more."""
        call, first = self.sent[-1 - n % len(self.sent)]
        before = copy.deepcopy(self.twin)
        known = before.calls.get(str(call.args[2])) if call.script in ("gate_admit", "gate_settle") else None
        self.say(call)
        gone = before.due and before.due <= max(self.now, before.clock)
        if known is not None and not gone and (call.script == "gate_admit" or known == "-"):
            assert self.changed(before) == [], (call.script, call.args, first)

    def changed(self, before: Gate) -> Sequence[str]:
        one, other = copy.deepcopy(before), copy.deepcopy(self.twin)
        one.clock = other.clock
        if one.due and one.due <= other.clock:  # the sweep goes on whoever calls
            one.due = other.due
        return differences(one, other, "before", "after")


def test_a_gates_scripts_and_twin_say_and_do_the_same(server: EmbeddedRedis) -> None:
    side = Side(server)
    with side.store:
        run_state_machine_as_test(lambda: BothWorlds(side), settings=profile())  # type: ignore[arg-type]
