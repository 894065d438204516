"""Sending tickets by hand, where broker and store are not one Redis and no script can push them.

    script answers "these roles want a ticket" ──▶ Ring ──▶ apply_async

A ticket that is lost here costs a second: the sweep sends it again.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from techrevati.fleet.celery import broker
from techrevati.fleet.settings import Settings
from techrevati.store.wire import Ring

log = logging.getLogger(__name__)


def same_redis(settings: Settings) -> bool:
    """Tell whether scripts may push tickets themselves: broker and store are one Redis database."""
    if not settings.broker_url:
        return True
    if not broker.is_redis(settings.broker):
        return False
    ours, theirs = settings.redis_url, settings.broker
    return (broker.broker_url(ours), broker.broker_options(ours)) == (
        broker.broker_url(theirs),
        broker.broker_options(theirs),
    )


def ring_for(fleet: str, settings: Settings, *, app: Any = None, blocking: bool = False) -> Ring | None:
    """Give the way this process sends tickets itself, or None where scripts do.

    Unless `blocking`, sending happens on a thread of its own: an event loop must not wait for a broker.
    """
    if same_redis(settings):
        return None
    send = _sender(fleet, settings, app)
    if blocking:
        return send
    thread = ThreadPoolExecutor(1, "techrevati-tickets")

    def ring(partition: int, roles: list[str]) -> None:
        thread.submit(send, partition, roles)

    return ring


def _sender(fleet: str, settings: Settings, app: Any) -> Callable[[int, list[str]], None]:
    apps: list[Any] = [app] if app is not None else []

    def send(partition: int, roles: list[str]) -> None:
        # Imported here: an app that shares one Redis never pays for importing Celery.
        from techrevati.fleet.celery.app import make_celery
        from techrevati.fleet.celery.tickets import send_ticket

        if not apps:
            apps.append(make_celery(fleet, broker_url=settings.broker))
        for role in roles:
            try:
                send_ticket(apps[0], role, partition)
            except Exception as error:  # noqa: BLE001 - any broker's trouble; the sweep sends it again
                log.warning("no ticket for %s in partition %d: %s", role, partition, error)

    return send
