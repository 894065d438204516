"""Deadlines of plain calls: the thread behind them."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextvars import ContextVar

import pytest

from techrevati.runtime import TurnTimeoutError, _deadline
from techrevati.runtime._deadline import DeadlineCaller

name: ContextVar[str] = ContextVar("name", default="nobody")


def test_calls_see_a_copy_of_the_context() -> None:
    caller = DeadlineCaller()
    token = name.set("alice")
    try:

        def rename() -> str:
            before = name.get()
            name.set("bob")
            return before

        assert caller.call(rename, 30) == "alice"
        assert name.get() == "alice"
    finally:
        name.reset(token)
    assert caller.call(name.get, 30) == "nobody"
    caller.close()


def test_one_daemon_thread_serves_calls_that_come_back() -> None:
    caller = DeadlineCaller()
    threads = {caller.call(threading.current_thread, 30) for _ in range(10)}
    (thread,) = threads
    assert thread.daemon
    assert thread is not threading.main_thread()
    caller.close()
    thread.join(10)
    assert not thread.is_alive()
    assert caller.call(threading.current_thread, 30) is not thread
    caller.close()
    caller.close()


def test_an_abandoned_thread_is_not_used_again_and_ends_alone() -> None:
    caller = DeadlineCaller()
    release = threading.Event()
    stuck: list[threading.Thread] = []

    def hang() -> None:
        stuck.append(threading.current_thread())
        release.wait(30)

    with pytest.raises(TurnTimeoutError):
        caller.call(hang, 0.05)
    other = caller.call(threading.current_thread, 30)
    release.set()
    for thread in stuck:
        assert other is not thread
        thread.join(10)
        assert not thread.is_alive()
    caller.close()


def test_a_call_inside_a_call_has_a_thread_of_its_own() -> None:
    caller = DeadlineCaller()

    def outer() -> bool:
        return caller.call(threading.current_thread, 30) is not threading.current_thread()

    assert caller.call(outer, 30)
    caller.close()


def test_an_idle_thread_ends_and_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_deadline, "_IDLE", 0.01)
    caller = DeadlineCaller()
    thread = caller.call(threading.current_thread, 30)
    thread.join(10)
    assert not thread.is_alive()
    assert caller.call(lambda: 5, 30) == 5
    caller.close()


def test_work_that_arrives_as_the_thread_gives_up_is_still_done(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = DeadlineCaller()
    caller.call(int, 30)
    worker = caller._idle
    assert worker is not None
    job = _deadline._Job(lambda: 7)
    with worker._guard:  # what `_wait` finds when its patience ends just now
        worker._job = job
    monkeypatch.setattr(_deadline, "_IDLE", 0.0)
    worker._wake.release()
    assert job.done.acquire(timeout=10)
    assert job.value == 7
    worker.retire()
    worker.retire()
    worker.join(10)
    assert not worker.give(_deadline._Job(int))


def test_endless_deadlines_are_allowed() -> None:
    caller = DeadlineCaller()
    assert caller.call(lambda: 1, float("inf")) == 1
    caller.close()


def test_a_stuck_call_does_not_keep_the_interpreter() -> None:
    code = (
        "import threading\n"
        "from techrevati.runtime import AgentSession, TurnTimeoutError\n"
        "with AgentSession('r', 'p').session() as s:\n"
        "    try: s.run_turn(lambda: threading.Event().wait(), timeout=0.01)\n"
        "    except TurnTimeoutError: print('left')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout.strip() == "left"
