"""Joining a fleet to Celery: the app of one role, with the engine in its sockets."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from celery.signals import setup_logging

from techrevati.fleet.agents import Agent
from techrevati.fleet.budgets import BudgetSpec
from techrevati.fleet.celery.app import FleetCelery, make_celery
from techrevati.fleet.celery.tickets import capture_template
from techrevati.fleet.celery.watchdogs import WatchdogLimits
from techrevati.fleet.checkpoints import CheckpointSpec
from techrevati.fleet.models import Costs, Models
from techrevati.fleet.ringing import ring_for, same_redis
from techrevati.fleet.settings import Settings
from techrevati.fleet.sinks import SinkSpec
from techrevati.fleet.worker import LoopHost, Template, WorkerRuntime
from techrevati.store.gates import GateSpec
from techrevati.telemetry.logs import configure


class Declared(Protocol):
    """What is served: a `Fleet`, seen from below."""

    name: str
    models: Models
    gates: dict[str, GateSpec]
    costs: dict[str, Costs]
    spending: BudgetSpec | None
    saving: CheckpointSpec | None
    telling: SinkSpec | None

    @property
    def settings(self) -> Settings: ...

    @property
    def served(self) -> dict[str, Agent]: ...


def make_app(fleet: Declared, role: str | None, seam: Callable[[str], None] | None = None) -> FleetCelery:
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
    own_logs(settings)

    def make() -> WorkerRuntime:
        return WorkerRuntime(
            fleet.name,
            role,
            fleet.served,
            fleet.models,
            settings,
            template=template_of(app, settings),
            ring=ring_for(fleet.name, settings, app=app),
            seam=seam,
            gates=fleet.gates,
            costs=fleet.costs,
            budget=fleet.spending,
            saving=fleet.saving,
            telling=fleet.telling,
        )

    runtime = make()
    app.techrevati_runtime = runtime
    app.techrevati_serve = runtime.serve
    app.techrevati_host = LoopHost(make)
    app.techrevati_serve_sync = app.techrevati_host.serve
    app.techrevati_ready_count = runtime.ready_count
    if settings.otel:
        from techrevati.telemetry.setup import instrument_worker

        instrument_worker(fleet.name)
    return app


def own_logs(settings: Settings) -> None:
    """Have a worker log as every other process of the fleet does; ``-l`` and ``-f`` keep their meaning for Celery."""

    def configure_logs(loglevel: int, logfile: str | None, **_: Any) -> None:
        configure(settings.log_level, as_json=settings.log_json, path=logfile)
        logging.getLogger("celery").setLevel(loglevel)

    setup_logging.connect(configure_logs, weak=False, dispatch_uid="techrevati")


def template_of(app: Any, settings: Settings) -> Template:
    """Give the function that captures this app's ticket templates, each once."""
    if not same_redis(settings):
        return lambda role, partition: ""
    return cache(lambda role, partition: capture_template(app, role, partition).message)
