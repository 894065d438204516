"""The Celery app that the tests of this folder run in real worker processes."""

import os
from collections.abc import Callable
from typing import Any

from celery import bootsteps

from techrevati.fleet.celery.app import make_celery
from techrevati.fleet.celery.watchdogs import WatchdogLimits
from tests.integration.celery.sample_tasks import register

FLEET, URL = os.environ["SAMPLE_FLEET"], os.environ["SAMPLE_URL"]


def number(name: str, default: float) -> float:
    return float(os.environ.get(f"SAMPLE_{name}", default))


app = make_celery(
    FLEET,
    broker_url=URL,
    role="writer",
    concurrency=int(number("CONCURRENCY", 2000)),
    soft_shutdown=number("SOFT", 2),
    remote_control=bool(number("CONTROL", 0)),
    watchdogs=WatchdogLimits(
        lag_warn=0.5,
        lag_exit=number("LAG_EXIT", 60),
        last_chance=0.5,
        stall_after=number("STALL", 10),
        exit_grace=5.0,
    ),
)
register(app, URL)


async def serve(role: str, partition: int, draining: Callable[[], bool]) -> None:
    app.recorder.tell(f"served {role} {partition} draining={draining()}")


def serve_sync(role: str, partition: int, draining: Callable[[], bool]) -> None:
    app.recorder.tell(f"served {role} {partition} synchronously")


app.techrevati_serve, app.techrevati_serve_sync = serve, serve_sync


class DeafAfter(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """Fault under test: stay connected, and stop consuming; `SAMPLE_DEAF` times."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    left = int(number("DEAF", 0))

    def start(self, consumer: Any) -> None:
        if DeafAfter.left > 0:
            DeafAfter.left -= 1
            consumer.timer.call_after(0, self._go_deaf, (consumer,))

    def _go_deaf(self, consumer: Any) -> None:
        consumer.task_consumer.cancel()
        print("gone deaf", flush=True)


app.steps["consumer"].add(DeafAfter)
