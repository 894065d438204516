"""The Celery app of a fleet: one factory, every setting with its reason.

make_celery("newsroom", broker_url=…, role="writer") ─▶ celery -A workers.writer worker
"""

# mypy: disallow-untyped-calls=False
# kombu says it is typed, and most of its functions are not.

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import celery
from kombu.connection import Connection
from kombu.entity import Queue

from techrevati.fleet.celery import broker
from techrevati.fleet.celery.bootsteps import Host, install_steps
from techrevati.fleet.celery.loop_thread import LoopService
from techrevati.fleet.celery.tickets import Serve, ServeSync, TicketTask, role_queue
from techrevati.fleet.celery.transport import BATCHED
from techrevati.fleet.celery.watchdogs import WatchdogLimits

LOOK_AGAIN = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 3.0}
"""Seconds between attempts to reach a broker that went away."""


class FleetCelery(celery.Celery):  # type: ignore[misc]  # celery is untyped
    """A Celery app with the sockets that the turn engine plugs into.

    Set them after `make_celery`, before the worker starts.
    """

    #: Lives on the pool's loop: started with it, stopped before it ends.
    techrevati_runtime: LoopService | None = None
    #: Serves one ticket, on the asyncio pool and on prefork or threads.
    techrevati_serve: Serve | None = None
    techrevati_serve_sync: ServeSync | None = None
    #: On prefork and threads: started and stopped with each process that serves tickets.
    techrevati_host: Host | None = None
    #: Runs that wait for this worker's role, from memory if need be: 0 spares the stall watchdog
    #: its question to the broker.
    techrevati_ready_count: Callable[[], int] | None = None
    techrevati_watchdogs: WatchdogLimits = WatchdogLimits()
    techrevati_sync_threads: int = 32

    #: The running worker's pool says; `FleetWorker` binds it.
    techrevati_pool: Any = None

    def techrevati_draining(self) -> bool:
        """Tell whether this process is shutting down: claim nothing more."""
        return bool(getattr(self.techrevati_pool, "draining", False))

    @property
    def Worker(self) -> Any:  # the name Celery's command line asks for
        return self.subclass_with_self("techrevati.fleet.celery.worker:FleetWorker")

    def connection_for_read(self, url: str | None = None, **options: Any) -> Connection:
        """Open the consuming connection: with the transport that pops in batches, and soon after a loss.

        A broker that restarts is back within a second; kombu looks after two at the earliest.
        """
        connection: Connection = super().connection_for_read(url, **options)
        connection.ensure_connection = partial(connection.ensure_connection, **LOOK_AGAIN)  # type: ignore[method-assign]
        connection.transport_cls = BATCHED.get(connection.transport_cls, connection.transport_cls)
        return connection


def make_celery(
    name: str,
    *,
    broker_url: str,
    role: str | None = None,
    concurrency: int = 500,
    soft_shutdown: float = 30.0,
    remote_control: bool = False,
    sync_threads: int = 32,
    watchdogs: WatchdogLimits | None = None,
    transport_options: Mapping[str, object] | None = None,
) -> FleetCelery:
    """Build the Celery app of fleet `name`; `role` names the queue its workers consume.

    No connection is opened.  ``None`` for `role` is an app that only sends.

    Raises:
        UnsupportedBroker: the URL's scheme is none of redis, rediss, unix, sentinel, amqp.
    """
    app = FleetCelery(name, set_as_current=False)
    app.conf.update(settings(name, broker_url, role, concurrency, soft_shutdown, remote_control))
    app.conf.broker_transport_options = {**broker.broker_options(broker_url), **(transport_options or {})}
    app.techrevati_sync_threads = sync_threads
    if watchdogs is not None:
        app.techrevati_watchdogs = watchdogs
    app.register_task(TicketTask())
    install_steps(app)
    return app


def settings(
    name: str, url: str, role: str | None, concurrency: int, soft_shutdown: float, remote_control: bool
) -> dict[str, Any]:
    """Give the configuration of a fleet's Celery app, without the transport options."""
    queue = role_queue(name, role) if role else Queue(f"{name}.idle")
    return {
        "broker_url": broker.broker_url(url),
        # Tickets start the worker's day and end a broker's restart: wait for it, for ever.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Producers of one process; tickets are small and leave at once.
        "broker_pool_limit": 10,
        # -- what a worker is, so that the command line need not say it
        "worker_pool": "techrevati.fleet.celery.pool:TaskPool",
        "worker_concurrency": concurrency,
        "task_queues": [queue],
        "task_default_queue": queue.name,
        "task_default_exchange": queue.name,
        "task_default_routing_key": queue.name,
        # A typo in -Q must not become a queue that nobody fills.
        "task_create_missing_queues": False,
        # -- delivery
        # Local only without ack emulation: no more tickets than places, and what a shutdown cancels
        # goes back to the queue.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        # For prefork: a child that died did not finish its ticket.
        "task_reject_on_worker_lost": True,
        # A turn that outlives a connection is still fenced by its lease; killing it wastes its cost.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # The pool itself counts places across reconnects (`FreePlaces`).
        "worker_enable_prefetch_count_reduction": False,
        # Nothing here uses ETAs; a stray producer must not fill the worker's memory.
        "worker_eta_task_limit": 1000,
        "task_publish_retry": True,
        # -- results and content: the store has them
        "task_ignore_result": True,
        "result_backend": None,
        "task_store_errors_even_if_ignored": False,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # -- shutdown: turns that end in time end well, the rest is cancelled and released
        "worker_soft_shutdown_timeout": soft_shutdown,
        # -- chatter: every event and control queue costs each worker of the fleet
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        "worker_enable_remote_control": remote_control,
        # The process that embeds us owns logging and standard output.
        "worker_redirect_stdouts": False,
        # Amqp: doorbells need no quorum; Celery must not switch modes behind our back.
        "worker_detect_quorum_queues": not broker.is_redis(url),
    }
