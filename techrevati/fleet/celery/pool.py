"""A Celery worker pool on one asyncio loop: thousands of waiting turns in one process.

    hub thread ──apply/spawn──▶ asyncio thread: ``async def arun`` tasks ──┐
        ▲                  └──▶ a few threads: plain tasks, stock tracer ──┤
        └───────────── results, through an eventfd ────────────────────────┘

Every acknowledgement, state change and broker write happens on the hub's thread.
"""

# mypy: disallow-untyped-calls=False
# kombu says it is typed, and most of its functions are not.

import itertools
import logging
import select
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.concurrency.base import BasePool
from celery.exceptions import Terminated
from celery.worker import state as worker_state
from kombu.serialization import loads, prepare_accept_content

from techrevati.fleet.celery.doorbell import Doorbell
from techrevati.fleet.celery.job import Job
from techrevati.fleet.celery.loop_thread import LoopThread
from techrevati.fleet.celery.sync_threads import SyncThreads
from techrevati.fleet.celery.tracer import Call, Outcome, TicketContext, failure, run

log = logging.getLogger(__name__)

SIGTERM = 15
COLD_GRACE = 5.0  # s, for cancelled turns to let go of their leases


class TaskPool(BasePool):  # type: ignore[misc]  # celery is untyped
    """Coroutine tasks on one loop, plain tasks in a bounded thread pool."""

    body_can_be_buffer = True
    signal_safe = False  # its shutdown waits, which no signal handler may
    task_join_will_block = False
    limit: int

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.draining = False
        self.last_apply = time.monotonic()
        self._ids = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._inbox: deque[tuple[Job, Call, float | None, float | None]] = deque()
        self._inbox_armed = False
        self._results: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._bell = Doorbell()
        self._ring_armed = False
        self._stopped = False

    # -- what the rest of the worker may ask

    @property
    def active_count(self) -> int:
        """Tasks that the pool holds now."""
        return len(self._jobs)

    @property
    def free(self) -> int:
        """Tickets that could start now; 0 once the pool drains."""
        return 0 if self.draining else max(0, self.limit - len(self._jobs))

    def begin_drain(self) -> None:
        """Tell long tickets to claim nothing more; any thread, a signal handler too, any number of times."""
        self.draining = True

    def grow(self, places: int = 1) -> None:
        """Add places; ``celery control pool_grow``."""
        self.limit += places

    def shrink(self, places: int = 1) -> None:
        """Take places away; tasks in flight keep theirs."""
        self.limit = max(1, self.limit - places)

    # -- lifecycle, on the main thread

    def on_start(self) -> None:
        self._accept = prepare_accept_content(self.app.conf.accept_content)
        threads = getattr(self.app, "techrevati_sync_threads", None) or min(self.limit, 32)
        self._threads = SyncThreads(threads, name="techrevati-sync")
        self._loop_thread = LoopThread(getattr(self.app, "techrevati_runtime", None))
        self.loop = self._loop_thread.loop
        self._loop_thread.start(self)

    def register_with_event_loop(self, hub: Any) -> None:
        hub.add_reader(self._bell.fileno(), self._drain)

    def on_close(self) -> None:
        self.begin_drain()

    def on_stop(self) -> None:
        """Wait for the tasks in flight, acknowledging as they end.

        A cold shutdown has cancelled them before it calls this; then the wait is bounded.
        """
        self.begin_drain()
        self.wait(COLD_GRACE if worker_state.should_terminate is not None else None)
        self._shut_down()

    def on_terminate(self) -> None:
        """Cancel what is left, give it `COLD_GRACE` to let go, leave the rest unacknowledged."""
        self.begin_drain()
        for pid in tuple(self._jobs):
            self.terminate_job(pid)
        self.wait(COLD_GRACE)
        self._shut_down()

    def wait(self, timeout: float | None = None) -> bool:
        """Handle results until no task is left, or the time is up; main thread only, re-entrant."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._drain()
            if not self._jobs:
                self._drain()  # a job leaves before its result is handled
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if self._stopped or (left is not None and left <= 0):
                return False
            select.select([self._bell.fileno()], [], [], left)

    def _shut_down(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._loop_thread.stop()
        self._drain()
        self._bell.ring()  # a signal handler may have run us inside a `wait` further up the stack

    # -- the hub's thread

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = (),
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        timeout_callback: Any = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Job:
        """Celery's entrance; tickets take the shorter `spawn`."""
        task = self.app.tasks.get(args[0]) if args else None
        if getattr(task, "arun", None) is None:
            return self._apply_plain(target, args, kwargs or {}, callback, accept_callback)
        _name, task_id, headers, body, content_type, encoding = args
        call_args, call_kwargs, embed = (
            loads(body, content_type, encoding, accept=self._accept) if content_type else body
        )
        fields = {"args": call_args, "kwargs": call_kwargs, "called_directly": False}
        context = TicketContext(headers, embed or {}, fields)
        call = Call(task, task_id, context, call_args, call_kwargs)
        return self.spawn(call, callback, timeout_callback, accept_callback, soft_timeout, timeout)

    def spawn(
        self,
        call: Call,
        on_result: Callable[..., Any],
        on_timeout: Callable[..., Any] | None,
        on_accepted: Callable[..., Any] | None,
        soft_limit: float | None = None,
        hard_limit: float | None = None,
    ) -> Job:
        """Start a coroutine task; the callbacks come on this thread."""
        job = Job(next(self._ids), self.terminate_job, on_result, on_timeout)
        self._jobs[job.pid] = job
        self.last_apply = time.monotonic()
        if on_accepted is not None:
            on_accepted(job.pid, self.last_apply)
        options = self.options
        soft, hard = soft_limit or options.get("soft_timeout"), hard_limit or options.get("timeout")
        self._inbox.append((job, call, soft, hard))
        if not self._inbox_armed:  # one wake-up of the loop for a burst
            self._inbox_armed = True
            self.loop.call_soon_threadsafe(self._admit)
        return job

    def _apply_plain(self, target: Any, args: Any, kwargs: Any, callback: Any, on_accepted: Any) -> Job:
        job = Job(next(self._ids), self.terminate_job, callback, None)
        self._jobs[job.pid] = job
        self.last_apply = time.monotonic()
        self._threads.submit(partial(self._run_plain, job, target, args, kwargs, on_accepted))
        return job

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Cancel a coroutine task; a plain one that has begun cannot be stopped."""
        job = self._jobs.get(pid)
        if job is not None:
            job.interrupt.signal = int(signal or SIGTERM)
            self.loop.call_soon_threadsafe(self._cancel, job)

    def _drain(self) -> None:
        self._bell.clear()
        results = self._results
        while results:
            function, args = results.popleft()
            try:
                function(*args)
            except Exception:
                log.exception("pool: %r failed", function)

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return {**info, "active": self.active_count, "free": self.free, "draining": self.draining}

    # -- the asyncio thread

    def _admit(self) -> None:
        self._inbox_armed = False
        inbox, create_task = self._inbox, self.loop.create_task
        while inbox:
            job, call, soft, hard = inbox.popleft()
            if job.interrupt.signal is not None:  # revoked before it began
                self._end(job, Outcome(True, failure(Terminated(job.interrupt.signal)), 0.0))
                continue
            job.handle = create_task(self._run(job, call))
            if soft or hard:
                self._limit(job, soft, hard)

    async def _run(self, job: Job, call: Call) -> None:
        self._end(job, await run(call, job.interrupt))

    def _limit(self, job: Job, soft: float | None, hard: float | None) -> None:
        later = self.loop.call_later
        timers = [later(soft, self._soft_limit, job, soft)] if soft else []
        if hard:
            timers.append(later(hard, self._hard_limit, job, hard))
        job.timers = tuple(timers)

    def _soft_limit(self, job: Job, seconds: float) -> None:
        job.interrupt.soft_limit = seconds
        self._post(job.on_timeout, True, seconds)
        self._cancel(job)

    def _hard_limit(self, job: Job, seconds: float) -> None:
        """Give up on the task: its place is free from now on, whether it heeds the cancellation or not."""
        if job.ended:
            return
        job.interrupt.signal = SIGTERM
        self._cancel(job)
        self._post(job.on_timeout, False, seconds)
        self._leave(job)

    def _cancel(self, job: Job) -> None:
        if job.handle is not None and not job.ended:
            job.handle.cancel()

    def _end(self, job: Job, outcome: Outcome) -> None:
        if not job.ended:
            self._post(job.on_result, outcome)  # first: `wait` trusts that no job means no result to come
            self._leave(job)

    def _leave(self, job: Job) -> None:
        job.ended = True
        for timer in job.timers:
            timer.cancel()
        self._jobs.pop(job.pid, None)

    def _post(self, function: Callable[..., Any] | None, *args: Any) -> None:
        """Have the hub's thread call `function`; rings at the end of this turn of the loop."""
        if function is not None:
            self._results.append((function, args))
            if not self._ring_armed:
                self._ring_armed = True
                self.loop.call_soon(self._ring)

    def _ring(self) -> None:
        self._ring_armed = False
        self._bell.ring()

    # -- threads of the plain tasks

    def _run_plain(self, job: Job, target: Any, args: Any, kwargs: Any, on_accepted: Any) -> None:
        try:
            if job.interrupt.signal is not None:
                outcome: Any = Outcome(True, failure(Terminated(job.interrupt.signal)), 0.0)
            else:
                if on_accepted is not None:
                    self._results.append((on_accepted, (job.pid, time.monotonic())))
                    self._bell.ring()
                outcome = target(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  # the request must end, whatever its task did
            outcome = Outcome(True, failure(error), 0.0)
        job.ended = True
        self._results.append((job.on_result, (outcome,)))
        self._jobs.pop(job.pid, None)
        self._bell.ring()
