"""A Celery task whose body is a coroutine: ``async def arun(self, request, …)``.

    apply_async ──▶ a message of the few headers a worker reads; canvas and delays are refused
    strategy    ──▶ `AsyncRequest` ──▶ ``TaskPool.spawn``      (any other pool: stock strategy, ``run``)

Chains, chords, retries and countdowns belong to the store: it can lose none of them, and a delay
in a broker's message outlives neither a visibility timeout nor a cancelled run.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, NoReturn

import celery
from celery.app.amqp import task_message
from kombu.utils.uuid import uuid

from techrevati.runtime.errors import TechrevatiError

CANVAS = ("link", "link_error", "chord", "chain", "group_id", "callbacks", "errbacks", "group")
DELAYS = ("countdown", "eta")
_REFUSED = frozenset((*CANVAS, *DELAYS))
# Options of `apply_async` that the message carries; the rest is routing and goes to the producer.
HEADERS = ("expires", "time_limit", "soft_time_limit", "shadow")


class CanvasRefused(TechrevatiError):
    """A coroutine task was asked to be part of a Celery workflow, to wait or to retry."""

    def __init__(self, task: str, option: str) -> None:
        super().__init__(task, option)
        self.task, self.option = task, option

    def __str__(self) -> str:
        if self.option in DELAYS or self.option == "retry":
            fix = "delays and retries live in the store: return turn.sleep(seconds), or start with delay="
        else:
            fix = "order work with handoffs: return turn.handoff(role)"
        return f"task {self.task} takes no {self.option}; {fix}"


def refused(options: Mapping[str, Any]) -> str | None:
    """Name the first option that a coroutine task cannot honour, if there is one."""
    if _REFUSED.isdisjoint(options):  # every ticket passes here
        return None
    return next((name for name in (*CANVAS, *DELAYS) if options.get(name)), None)


class AsyncTask(celery.Task):  # type: ignore[misc]  # celery is untyped
    """Base of coroutine tasks: define ``arun``, and ``run`` if prefork or threads should serve it too."""

    abstract = True
    Strategy = "techrevati.fleet.celery.strategy:ticket_strategy"
    ignore_result = True
    max_retries = 0
    # Headers beside the task's name and id; a body that is worth reading in a log overrides it.
    extra_headers: ClassVar[Mapping[str, Any]] = {}

    async def arun(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Do the work; `request` is the `celery.app.task.Context` of this delivery."""
        raise NotImplementedError(f"task {self.name} has no arun")

    def retry(self, *_: Any, **__: Any) -> NoReturn:
        raise CanvasRefused(self.name, "retry")

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        **options: Any,
    ) -> Any:
        """Send one message; returns an ``AsyncResult``, as Celery's own does.

        Raises:
            CanvasRefused: a workflow, a countdown or an ETA was asked for.
        """
        if name := refused(options):
            raise CanvasRefused(self.name, name)
        app = self._get_app()
        task_id = task_id or uuid()
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, task_id=task_id, **options)
        message = self._message(task_id, list(args or ()), dict(kwargs or {}), options)
        for routed in (*CANVAS, *DELAYS, "retries", "root_id", "parent_id", "group_index", "add_to_parent"):
            options.pop(routed, None)
        options.pop("ignore_result", None)  # results are the store's
        options = app.amqp.router.route(options, self.name, args, kwargs)
        with app.producer_or_acquire(producer) as channel_producer:
            app.amqp.send_task_message(channel_producer, self.name, message, **options)
        return app.AsyncResult(task_id)

    def _message(self, task_id: str, args: list[Any], kwargs: dict[str, Any], options: dict[str, Any]) -> Any:
        # Celery's protocol 2 with what a worker reads: 20 headers of stock `apply_async` weigh 600
        # bytes, and are None, False or repeat the body.
        headers: dict[str, Any] = {"lang": "py", "task": self.name, "id": task_id, **self.extra_headers}
        given = {name: options.pop(name, None) for name in HEADERS}
        if given["expires"] is not None:
            headers["expires"] = _isoformat(self._get_app(), given["expires"])
        limits = (given["time_limit"], given["soft_time_limit"])
        if limits != (None, None):
            headers["timelimit"] = list(limits)
        if given["shadow"]:
            headers["shadow"] = given["shadow"]
        return task_message(headers, {}, (args, kwargs, {}), None)


def _isoformat(app: Any, expires: Any) -> str:
    if isinstance(expires, (int, float)):
        return str((app.now() + timedelta(seconds=expires)).isoformat())
    return expires if isinstance(expires, str) else str(expires.isoformat())
