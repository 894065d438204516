"""The breaker under any sequence of events, against a model written from its table."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.runtime import CircuitBreaker, CircuitOpenError, CircuitState, ManualClock
from techrevati.runtime.circuit_breaker import Breaker, Rule, admit, fail, give_back, seen_state, succeed

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
rules = st.builds(Rule, st.integers(-1, 4), st.sampled_from([0.0, 1.0, 10.0]), st.integers(0, 3))
events = st.lists(
    st.tuples(st.sampled_from(["admit", "good", "bad", "back"]), st.sampled_from([0.0, 0.5, 1.0, 10.0])),
    max_size=40,
)


@settings(deadline=None)
@given(rules, events)
def test_invariants_hold_after_every_event(rule: Rule, script: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for what, passed in script:
        now += passed
        before = breaker
        if what == "admit":
            breaker, admitted = admit(breaker, rule, now)
            assert admitted or breaker == before
        elif what == "good":
            breaker = succeed(breaker)
        elif what == "bad":
            breaker = fail(breaker, rule, now)
        else:
            breaker = give_back(breaker)
        assert breaker.failures >= 0
        assert 0 <= breaker.probes <= max(1, rule.max_probes)
        assert breaker.state is not OPEN or breaker.failed_at is not None
        assert breaker.failures < max(1, rule.failure_threshold) or breaker.state is not CLOSED
        assert (breaker.generation != before.generation) == (breaker.state is not before.state)
        assert breaker.state is HALF_OPEN or breaker.probes == 0
        assert seen_state(breaker, rule, now) in (breaker.state, HALF_OPEN)


@dataclass
class Model:
    """The table of the reference, line by line."""

    threshold: int
    timeout: float
    state: CircuitState = CLOSED
    count: int = 0
    failed_at: float | None = None

    def admits(self, now: float) -> bool:
        if self.state is OPEN:
            if self.failed_at is None or now - self.failed_at < self.timeout:
                return False
            self.state = HALF_OPEN
        return True

    def good(self) -> None:
        self.count = 0
        if self.state is HALF_OPEN:
            self.state = CLOSED

    def bad(self, now: float) -> None:
        self.count += 1
        self.failed_at = now
        if self.state is HALF_OPEN or self.count >= self.threshold:
            self.state = OPEN


def boom() -> None:
    raise ValueError


@settings(deadline=None)
@given(
    st.integers(-1, 4),
    st.sampled_from([0.0, 1.0, 10.0]),
    st.lists(st.tuples(st.sampled_from("gbGBs"), st.sampled_from([0.0, 0.5, 1.0, 10.0])), max_size=40),
)
def test_one_caller_at_a_time_sees_the_table(threshold: int, timeout: float, script: list[tuple[str, float]]) -> None:
    clock = ManualClock()
    breaker = CircuitBreaker("b", threshold, timeout, clock=clock)
    model = Model(threshold, timeout)
    for what, passed in script:
        clock.advance(passed)
        if what in "gb":
            admitted = True
            try:
                breaker.call(int if what == "g" else boom)
            except CircuitOpenError:
                admitted = False
            except ValueError:
                pass
            assert admitted == model.admits(clock())
            if admitted:
                model.good() if what == "g" else model.bad(clock())
        elif what == "G":
            breaker.record_success()
            model.good()
        elif what == "B":
            breaker.record_failure()
            model.bad(clock())
        stored = (breaker._state, breaker._failure_count, breaker._last_failure_time)
        assert stored == (model.state, model.count, model.failed_at)
        waited = model.failed_at is not None and clock() - model.failed_at >= timeout
        assert breaker.state() is (HALF_OPEN if model.state is OPEN and waited else model.state)
