"""When a loop is dead, when a consumer is deaf, and what is done about it."""

import pytest

from techrevati.fleet.celery.watchdogs import (
    EX_SOFTWARE,
    Lag,
    LoopWatchdog,
    Observation,
    StallWatchdog,
    Step,
    WatchdogLimits,
    judge_lag,
    next_step,
    silence,
    stalled,
)

LIMITS = WatchdogLimits()


@pytest.mark.parametrize(
    ("silent_for", "verdict"),
    [(0.0, Lag.FINE), (1.0, Lag.FINE), (1.1, Lag.SLOW), (60.0, Lag.SILENT), (65.0, Lag.DEAD)],
)
def test_lag_is_judged_by_silence(silent_for: float, verdict: Lag) -> None:
    assert judge_lag(silent_for, LIMITS) is verdict


def test_process_that_was_stopped_has_not_been_silent() -> None:
    assert silence(0.0, 3600.0, 0.5, answered=False) == 1.0
    assert silence(30.0, 0.5, 0.5, answered=False) == 30.5
    assert silence(30.0, 0.5, 0.5, answered=True) == 0.0


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Observation(5, 3, 10.1), True),
        (Observation(5, 3, 10.0), False),
        (Observation(0, 3, 99.0), False),
        (Observation(5, 0, 99.0), False),
        (Observation(None, 3, 99.0), False),
    ],
)
def test_stall_needs_work_places_and_silence(seen: Observation, verdict: bool) -> None:
    assert stalled(seen, after=10.0) is verdict


def test_third_restart_in_vain_is_the_last() -> None:
    deaf, restarts, steps = Observation(5, 3, 11.0), 0, []
    for _ in range(4):
        step, restarts = next_step(deaf, restarts, LIMITS)
        steps.append(step)
    assert steps == [Step.RESTART, Step.RESTART, Step.RESTART, Step.GIVE_UP]


class Worker:
    """A consumer and a clock that the test moves by hand."""

    def __init__(self) -> None:
        self.now, self.last_ticket, self.ready = 100.0, 100.0, 5
        self.did: list[str] = []
        self.watchdog = StallWatchdog(
            ready=lambda: self.ready,
            free_places=lambda: 1,
            last_ticket=lambda: self.last_ticket,
            restart=lambda _: self.did.append("restart"),
            give_up=lambda _: self.did.append("give up"),
            limits=LIMITS,
            clock=lambda: self.now,
        )

    def after(self, seconds: float) -> list[str]:
        self.now += seconds
        self.watchdog.look()
        return self.did


def test_each_restart_gets_its_time_before_the_next() -> None:
    worker = Worker()
    assert worker.after(10.5) == ["restart"]
    assert worker.after(5.0) == ["restart"]
    assert worker.after(5.5) == ["restart", "restart"]


def test_ticket_after_a_restart_forgives_the_ones_before() -> None:
    worker = Worker()
    for _ in range(3):
        worker.after(10.5)
    worker.last_ticket = worker.now + 1
    assert worker.after(2.0) == ["restart"] * 3
    assert worker.after(12.0) == ["restart"] * 4


def test_unreachable_store_is_no_stall() -> None:
    worker = Worker()

    def unreachable() -> int:
        raise OSError("down")

    worker.watchdog._ready = unreachable
    assert worker.after(99.0) == []


def test_silent_loop_is_reported_then_ends_the_process(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, exits, stacks = [0.0], list[int](), list[object]()
    monkeypatch.setattr("faulthandler.dump_traceback", lambda **_: stacks.append(now[0]))
    limits = WatchdogLimits(lag_warn=1, lag_exit=4, last_chance=2)
    dog = LoopWatchdog(lambda _: None, limits, interval=1.0, die=exits.append, clock=lambda: now[0])
    for _ in range(8):
        now[0] += 1.0
        dog.look()
        if exits:
            break
    assert exits == [EX_SOFTWARE]
    assert len(stacks) == 2
    assert "event loop silent for 2.0 s" in caplog.text


def test_loop_that_answers_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    now, exits = [0.0], list[int]()
    limits = WatchdogLimits(lag_warn=1, lag_exit=4)
    dog = LoopWatchdog(lambda call: call(), limits, interval=1.0, die=exits.append, clock=lambda: now[0])
    for _ in range(20):
        now[0] += 1.0
        dog.look()
    assert exits == []
    assert caplog.text == ""
