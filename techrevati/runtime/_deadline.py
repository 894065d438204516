"""Deadlines: stop waiting for a call when its time is up.

    caller ──fn──▶ daemon thread ──value──▶ caller │ deadline: TurnTimeoutError, thread runs on

A plain call cannot be interrupted, so it runs in a thread that may be left behind.  The thread
is a daemon (a stuck call must not keep the interpreter alive) and is used again if it came
back in time: starting one costs more than a turn.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, TypeVar

from techrevati.runtime._errors import TurnTimeoutError

T = TypeVar("T")

_IDLE = 10.0  # s an unused thread waits for more work before it ends


class _Job:
    """One call, where it left its outcome, and a lock that opens when it has."""

    __slots__ = ("context", "done", "error", "fn", "value")

    def __init__(self, fn: Callable[[], Any]) -> None:
        self.fn, self.context = fn, copy_context()
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def run(self) -> None:
        try:
            self.value = self.context.run(self.fn)
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            self.error = error
        finally:
            self.done.release()


class _Worker(threading.Thread):
    """A thread that runs one job at a time until it is retired or idle for long."""

    def __init__(self) -> None:
        super().__init__(name="techrevati-turn", daemon=True)
        self._guard = threading.Lock()
        self._wake = threading.Lock()
        self._wake.acquire()
        self._job: _Job | None = None
        self._retired = False

    def give(self, job: _Job) -> bool:
        """Hand over a job; false if the thread has ended or is about to."""
        with self._guard:
            if self._retired or not self.is_alive():
                return False
            self._job = job
        self._wake.release()
        return True

    def retire(self) -> None:
        """End after the job at hand."""
        with self._guard:
            if self._retired:
                return
            self._retired = True
            if self._job is None:
                self._wake.release()

    def run(self) -> None:
        while self._wait():
            job, self._job = self._job, None
            if job is not None:
                job.run()
            del job  # an idle thread must not keep a result alive
            if self._retired:
                return

    def _wait(self) -> bool:
        if self._wake.acquire(timeout=_IDLE):
            return True
        with self._guard:
            if self._job is None:
                self._retired = True
                return False
        return self._wake.acquire()  # a job came in between


class DeadlineCaller:
    """Calls with a deadline for one session, on one thread while all goes well."""

    __slots__ = ("_idle",)

    def __init__(self) -> None:
        self._idle: _Worker | None = None

    def call(self, fn: Callable[[], T], timeout: float) -> T:
        """Run `fn` with a copy of the caller's context, waiting `timeout` seconds at most.

        Raises:
            TurnTimeoutError: time is up; `fn` runs on and nobody will see its outcome.
        """
        job = _Job(fn)
        worker, self._idle = self._idle, None
        if worker is None or not worker.give(job):
            worker = _Worker()
            worker.start()
            worker.give(job)
        in_time = False
        try:
            in_time = job.done.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        finally:
            if not in_time:
                worker.retire()
        if not in_time:
            raise TurnTimeoutError(timeout)
        self._idle = worker
        if job.error is not None:
            try:
                raise job.error
            finally:
                job.error = None  # the traceback holds this frame, and the frame the job
        value: T = job.value
        return value

    def close(self) -> None:
        """Let the idle thread end."""
        worker, self._idle = self._idle, None
        if worker is not None:
            worker.retire()


async def await_within(factory: Callable[[], Awaitable[T]], timeout: float) -> T:
    """Await ``factory()``, cancelling it after `timeout` seconds.

    A `TimeoutError` of its own passes through; so does a cancellation from outside.

    Raises:
        TurnTimeoutError: time is up.
    """
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            return await factory()
    except TimeoutError as error:
        if scope.expired():
            raise TurnTimeoutError(timeout) from error
        raise
