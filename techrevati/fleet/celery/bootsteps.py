"""What a fleet adds to Celery's worker and consumer blueprints.

worker:    CheckTasks, StartHost, WatchLoop, WatchConsumer          consumer:  FreePlaces (at each connect)
"""

import contextlib
import inspect
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

from celery import bootsteps, signals
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.worker import state

from techrevati.fleet.celery.pool import TaskPool
from techrevati.fleet.celery.watchdogs import EX_SOFTWARE, LoopWatchdog, StallWatchdog
from techrevati.runtime.errors import TechrevatiError

log = logging.getLogger(__name__)


class CoroutineRun(TechrevatiError):
    """A task's ``run`` is a coroutine function, which no Celery pool would ever await."""

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return f"task {self.task}: run is 'async def', nothing awaits it; name it arun on an AsyncTask"


class ConsumerStalled(TechrevatiError, ConnectionError):
    """Raised in the hub to take Celery's own way out of a lost connection."""


class CheckTasks(bootsteps.Step):  # type: ignore[misc]  # celery is untyped
    """Refuse to start with a task that would silently do nothing; tell the app its pool."""

    requires = ("celery.worker.components:Pool",)

    def create(self, worker: Any) -> None:
        for task in worker.app.tasks.values():
            if inspect.iscoroutinefunction(task.run):
                raise CoroutineRun(task.name)
        pool = worker.app.techrevati_pool = worker.pool
        if isinstance(pool, TaskPool):
            # In the signal handler of the first SIGTERM, before the hub takes notice.
            self._begin_drain = lambda **_: pool.begin_drain()
            signals.worker_shutting_down.connect(self._begin_drain)


class Host(Protocol):
    """What serves tickets in a process whose pool is not ours."""

    def start(self, places: int) -> None: ...

    def stop(self) -> None: ...


class StartHost(bootsteps.Step):  # type: ignore[misc]  # celery is untyped
    """On prefork and threads, have each process that serves tickets announce itself while it lives.

    Without a place announced, nobody would send a ticket.
    """

    requires = ("celery.worker.components:Pool",)

    def create(self, worker: Any) -> None:
        host: Host | None = worker.app.techrevati_host
        if host is None or isinstance(worker.pool, TaskPool):
            return
        # Held here: Celery's signals keep weak references.
        if isinstance(worker.pool, PreforkPool):
            self._begin, self._end = lambda **_: host.start(1), lambda **_: host.stop()
            signals.worker_process_init.connect(self._begin)
            signals.worker_process_shutdown.connect(self._end)
        else:
            self._begin, self._end = lambda **_: host.start(worker.pool.limit), lambda **_: host.stop()
            signals.worker_ready.connect(self._begin)
            signals.worker_shutdown.connect(self._end)


class WatchLoop(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """The thread that notices a blocked event loop."""

    requires = ("celery.worker.components:Pool",)
    watchdog: LoopWatchdog | None = None

    def start(self, worker: Any) -> None:
        limits = worker.app.techrevati_watchdogs
        if isinstance(worker.pool, TaskPool) and limits.lag_exit > 0:
            self.watchdog = LoopWatchdog(worker.pool.loop.call_soon_threadsafe, limits)
            self.watchdog.start()

    def stop(self, worker: Any) -> None:
        if self.watchdog is not None:
            self.watchdog.stop()

    terminate = stop


class WatchConsumer(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """The thread that notices tickets nobody fetches, and restarts the consumer."""

    requires = ("celery.worker.components:Pool", "celery.worker.components:Hub")
    watchdog: StallWatchdog | None = None

    def start(self, worker: Any) -> None:
        app, pool = worker.app, worker.pool
        limits = app.techrevati_watchdogs
        if not isinstance(pool, TaskPool) or worker.hub is None or limits.stall_after <= 0:
            return
        self.watchdog = StallWatchdog(
            ready=waiting_work(app.techrevati_ready_count, QueueDepth(app)),
            free_places=lambda: pool.free,
            last_ticket=lambda: pool.last_apply,
            restart=lambda said: restart_consumer(worker.hub, said),
            give_up=lambda said: give_up(worker, limits.exit_grace),
            limits=limits,
        )
        self.watchdog.start()

    def stop(self, worker: Any) -> None:
        if self.watchdog is not None:
            self.watchdog.stop()

    terminate = stop


def restart_consumer(hub: Any, said: str) -> None:
    """Have the hub's thread drop the broker connection and start the consumer's blueprint anew.

    The event loop lets connection errors out of timers only; `Consumer.start` then does what it
    does after a lost connection, which is the path of Celery that closes everything.
    """

    def fail() -> None:
        raise ConsumerStalled(said)

    hub.call_soon(hub.timer.call_after, 0, fail)


def give_up(worker: Any, grace: float) -> None:
    """End the process with `EX_SOFTWARE`: warm if the hub still turns, at once after `grace`."""
    worker.pool.begin_drain()
    state.should_stop = EX_SOFTWARE
    worker.hub.call_soon(lambda: None)
    last_resort = threading.Timer(grace, _exit_now)
    last_resort.daemon = True
    last_resort.start()


def _exit_now() -> None:
    log.critical("worker did not stop in time: exit %d", EX_SOFTWARE)
    os._exit(EX_SOFTWARE)


def waiting_work(store: Callable[[], int] | None, broker: Callable[[], int]) -> Callable[[], int]:
    """Count the work a restarted consumer would get: tickets at the broker, for runs that are ready.

    Ready runs alone are no proof: their tickets may be lost, or held back by a tenant's cap, and a
    restart would help neither.  The broker is asked last, as it costs a round trip.
    """

    def count() -> int:
        return 0 if store is not None and store() <= 0 else broker()

    return count


class QueueDepth:
    """How many messages wait in the queues this worker consumes, asked of the broker itself."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._connection: Any = None

    def __call__(self) -> int:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        try:
            return sum(self._length(queue.name) for queue in self._app.amqp.queues.consume_from.values())
        except BaseException:
            connection, self._connection = self._connection, None
            with contextlib.suppress(Exception):
                connection.close()
            raise

    def _length(self, queue: str) -> int:
        try:
            return int(self._connection.default_channel.queue_declare(queue, passive=True).message_count)
        except self._connection.channel_errors:  # on Redis an empty list does not exist
            return 0


class FreePlaces(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """Tell a fresh channel how many tickets the pool can start.

    A new connection counts from zero what it delivered, while the turns of the old one still run.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        pool, channel = consumer.pool, consumer.task_consumer.channel
        if isinstance(pool, TaskPool) and hasattr(channel, "free_places"):
            channel.free_places = lambda: pool.free
            qos, stock = channel.qos, channel.qos.can_consume
            qos.can_consume = lambda: pool.free > 0 and stock()


def install_steps(app: Any) -> None:
    """Add the steps to an app."""
    app.steps["worker"].update({CheckTasks, StartHost, WatchLoop, WatchConsumer})
    app.steps["consumer"].add(FreePlaces)
