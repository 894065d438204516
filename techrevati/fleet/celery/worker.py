"""The worker program, set up for tickets, so that plain ``celery -A app worker`` needs no flags.

celery -A app worker ─▶ app.Worker ─▶ FleetWorker ─▶ pool, consumer, steps
"""

import logging
import os
from typing import Any

import click
from celery.apps.worker import Worker
from celery.concurrency import get_implementation
from celery.worker import state
from click.core import ParameterSource

from techrevati.fleet.celery.pool import TaskPool

log = logging.getLogger(__name__)


def asked_for_prefork(pool: Any) -> bool:
    """Tell whether the command line says ``-P prefork`` although the app configures our pool.

    Celery cannot tell its default from the same word typed, and takes the configured pool for both.
    """
    context = click.get_current_context(silent=True)
    return (
        isinstance(pool, type)
        and issubclass(pool, TaskPool)
        and context is not None
        and context.get_parameter_source("pool") is ParameterSource.COMMANDLINE
        and "techrevati" not in os.environ.get("CELERY_CUSTOM_WORKER_POOL", "")
    )


class FleetWorker(Worker):  # type: ignore[misc]  # celery is untyped
    """Celery's worker, without its chatter between workers, and awake while it shuts down."""

    def prepare_args(self, **options: Any) -> dict[str, Any]:
        if asked_for_prefork(options.get("pool")):
            options["pool"] = None
            self.pool_cls = get_implementation("prefork")
        # Gossip and mingle tell every worker of every other one, O(n²) events; heartbeats are
        # events too.  Our pools announce themselves in the store.
        return {**options, "without_gossip": True, "without_mingle": True, "without_heartbeat": True}

    def wait_for_soft_shutdown(self) -> None:
        """Let turns finish for ``worker_soft_shutdown_timeout``, leaving as soon as none is left.

        Stock Celery sleeps the whole time and acknowledges nothing meanwhile.
        """
        if not isinstance(self.pool, TaskPool):
            super().wait_for_soft_shutdown()
            return
        self.pool.begin_drain()
        seconds = self.app.conf.worker_soft_shutdown_timeout
        if seconds > 0 and state.active_requests:
            log.warning("soft shutdown: up to %ss for %d tasks to finish", seconds, len(state.active_requests))
            self.pool.wait(seconds)
