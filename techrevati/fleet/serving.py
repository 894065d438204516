"""Joining a fleet to Celery: the app of one role, with the engine in its sockets."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from techrevati.fleet import broker
from techrevati.fleet.celery_app import FleetCelery, make_celery
from techrevati.fleet.settings import Settings
from techrevati.fleet.tickets import capture_template, send_ticket
from techrevati.fleet.watchdogs import WatchdogLimits
from techrevati.fleet.worker import LoopHost, Template, WorkerRuntime
from techrevati.store.wire import Ring

if TYPE_CHECKING:
    from techrevati.fleet.fleet import Fleet


def same_redis(settings: Settings) -> bool:
    """Tell whether scripts may push tickets themselves: broker and store are one Redis database."""
    return broker.is_redis(settings.broker) and broker.broker_url(settings.broker) == broker.broker_url(
        settings.redis_url
    )


def make_app(fleet: "Fleet", role: str | None, seam: Callable[[str], None] | None = None) -> FleetCelery:
    """Build the Celery app of a role (or of none: it only sends)."""
    settings = fleet.settings
    app = make_celery(
        fleet.name,
        broker_url=settings.broker,
        role=role,
        concurrency=settings.concurrency,
        soft_shutdown=settings.drain_grace,
        remote_control=settings.remote_control,
        sync_threads=settings.sync_threads,
        watchdogs=WatchdogLimits(lag_exit=settings.loop_stall, stall_after=settings.consumer_stall),
    )
    if role is None:
        return app

    def make() -> WorkerRuntime:
        return WorkerRuntime(
            fleet.name,
            role,
            fleet.agents,
            fleet.models,
            settings,
            template=template_of(app, settings),
            ring=ring_of(app, settings),
            seam=seam,
        )

    runtime = make()
    app.techrevati_runtime = runtime
    app.techrevati_serve = runtime.serve
    app.techrevati_serve_sync = LoopHost(make).serve
    app.techrevati_ready_count = runtime.ready_count
    if settings.otel:
        from techrevati.telemetry.setup import instrument_worker

        instrument_worker(fleet.name)
    return app


def template_of(app: Any, settings: Settings) -> Template:
    """Give the function that captures this app's ticket templates, each once."""
    if not same_redis(settings):
        return lambda role, partition: ""
    return cache(lambda role, partition: capture_template(app, role, partition).message)


def ring_of(app: Any, settings: Settings) -> Ring | None:
    """Give the function that sends the tickets which scripts cannot push themselves."""
    if same_redis(settings):
        return None

    def ring(partition: int, roles: list[str]) -> None:
        for role in roles:
            send_ticket(app, role, partition)

    return ring
