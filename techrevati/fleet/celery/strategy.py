"""From a message of a coroutine task to the pool, by the shortest correct path.

    message ─▶ revoked? rate limited? ─▶ AsyncRequest ─▶ TaskPool.spawn ─▶ … ─▶ ack

Stock Celery builds two promises, a dict of forty headers and a `Request` of thirty fields for each
message; a ticket is two words.  What operators see is kept: revoke, expiry, rate limits, time
limits, task events, ``inspect active``, totals.
"""

# mypy: disallow-untyped-calls=False
# kombu says it is typed, and most of its functions are not.

import logging
import time
from functools import lru_cache
from typing import Any
from weakref import ref

from celery import signals
from celery.exceptions import InvalidTaskError, TaskRevokedError
from celery.utils.time import maybe_iso8601, maybe_make_aware
from celery.worker import state
from celery.worker.request import Request
from celery.worker.strategy import default
from kombu.serialization import loads
from msgspec.json import decode

from techrevati.fleet.celery.async_task import CanvasRefused, refused
from techrevati.fleet.celery.pool import TaskPool
from techrevati.fleet.celery.tracer import Call, TicketContext

log = logging.getLogger(__name__)

# Headers that mean more than "run this": their presence costs the full check.
_GUARDED = ("expires", "stamped_headers")


@lru_cache(maxsize=4096)
def _decoded(body: bytes | str) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    # Tickets of one (role, partition) share their body to the byte.  Arguments are passed on as
    # * and **, so the cached containers are never handed out.
    args, kwargs, embed = decode(body)
    return tuple(args), kwargs, {name: value for name, value in (embed or {}).items() if value}


class AsyncRequest(Request):  # type: ignore[misc]  # celery is untyped
    """One delivery of a coroutine task; the strategy binds task, app and worker as class attributes."""

    _eta = _expires = _argsrepr = _kwargsrepr = _root_id = _parent_id = None
    _utc, _decoded, _ignore_result = True, True, True
    _soft_limit: float | None = None
    _hard_limit: float | None = None

    def __init__(self, message: Any, headers: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Not `super().__init__`: it is what this class exists to avoid.
        self._message, self._request_dict = message, headers
        self.id, self.name = headers["id"], headers.get("shadow") or self._type
        self._args, self._kwargs = args, kwargs
        if headers.get("expires"):
            self._read_expiry(headers["expires"])
        if limits := headers.get("timelimit"):
            self.time_limits = limits

    def _read_expiry(self, expires: str) -> None:
        try:
            self._expires = maybe_make_aware(maybe_iso8601(expires), self.tzlocal)
        except (AttributeError, ValueError, TypeError) as error:
            raise InvalidTaskError(f"invalid expires value {expires!r}: {error}") from error

    @property
    def _payload(self) -> tuple[Any, Any, dict[str, Any]]:
        return self._args, self._kwargs, {}

    @property
    def _body(self) -> Any:
        return self._message.body

    @property
    def _delivery_info(self) -> dict[str, Any]:
        info = self._message.delivery_info
        return {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key"),
            "priority": self._message.properties.get("priority"),
            "redelivered": info.get("redelivered", False),
        }

    def _on_ack(self, logger: Any, errors: Any, **_: Any) -> None:
        # At once: callbacks come on the hub's thread, so the hub's queue is a detour.
        self._message.ack_log_error(logger, errors)

    def _on_reject(self, logger: Any, errors: Any, requeue: bool = False) -> None:
        self._message.reject_log_error(logger, errors, requeue)

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the request to the pool.

        Raises:
            TaskRevokedError: it was revoked, or expired, while it waited.
        """
        headers, task = self._request_dict, self._task
        guarded = self.id in state.revoked or any(name in headers for name in _GUARDED)
        if guarded and self.revoked():
            raise TaskRevokedError(self.id)
        hard, soft = self.time_limits
        fields = {
            "args": self._args,
            "kwargs": self._kwargs,
            "hostname": self._hostname,
            "delivery_info": self._message.delivery_info,
            "called_directly": False,
        }
        context = TicketContext(headers, fields)
        job = pool.spawn(
            Call(task, self.id, context, self._args, self._kwargs),
            self.on_success,
            self.on_timeout,
            self.on_accepted,
            soft or task.soft_time_limit,
            hard or task.time_limit,
        )
        self._apply_result = ref(job)
        return job

    def on_accepted(self, pid: int, accepted_at: float) -> None:
        self.worker_pid, self.time_start = pid, time.time()
        state.requests[self.id] = self
        state.active_requests.add(self)
        state.total_count[self.name] += 1
        state.all_total_count[0] += 1
        if not self._task.acks_late:
            self.acknowledge()
        if self._eventer is not None:
            self.send_event("task-started")
        if self._terminate_on_ack is not None:
            self.terminate(*self._terminate_on_ack)

    def on_success(self, outcome: tuple[bool, Any, float], **_: Any) -> None:
        failed, value, seconds = outcome
        if failed:
            self.on_failure(value, return_ok=True)
            return
        # Not `successful=True`: that record protects late acks that wait in the hub; ours is next.
        state.task_ready(self)
        self.acknowledge()
        if self._eventer is not None:
            self.send_event("task-succeeded", result=value, runtime=seconds)


def ticket_strategy(task: Any, app: Any, consumer: Any) -> Any:
    """Celery's per-task message handler; the stock one unless the pool is ours."""
    if not isinstance(consumer.pool, TaskPool):
        return default(task, app, consumer)
    eventer = consumer.event_dispatcher
    bound = {
        "_app": app,
        "_task": task,
        "_type": task.name,
        "_hostname": consumer.hostname,
        "_eventer": eventer,
        "_connection_errors": consumer.connection_errors,
        "_content_type": None,
        "_content_encoding": None,
    }
    request_class = type("AsyncRequest", (AsyncRequest,), bound)
    revoked, handle = consumer.controller.state.revoked, consumer.on_task_request
    limited, bucket_of = not consumer.disable_rate_limits, consumer.task_buckets.__getitem__
    received, reserve = signals.task_received, state.reserved_requests.add
    pool, connection_errors = consumer.pool, consumer.connection_errors
    accept = consumer.task_consumer.accept if consumer.task_consumer else None
    info = log.isEnabledFor(logging.INFO)

    def on_message(message: Any, payload: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        headers = message.headers
        if pool.draining:  # fetched while the worker was told to go: for somebody else
            message.reject_log_error(log, connection_errors, requeue=True)
            return
        if message.content_type == "application/json":
            body = message.body  # text from amqp, a buffer from Redis
            args, kwargs, embed = _decoded(body if isinstance(body, str) else bytes(body))
        else:
            args, kwargs, embed = loads(message.body, message.content_type, message.content_encoding, accept=accept)
        if name := (embed and refused(embed)) or refused(headers):
            # Celery logs the reason with the message, and rejects it.
            raise InvalidTaskError(str(CanvasRefused(task.name, name)))
        request = request_class(message, headers, tuple(args), kwargs)
        if info:
            log.info("Task %s[%s] received", request.name, request.id)
        if (request.id in revoked or "expires" in headers) and request.revoked():
            return
        if received.receivers:
            received.send(sender=consumer, request=request)
        if eventer is not None:
            request.send_event("task-received", name=request.name, args=repr(args), kwargs=repr(kwargs))
        bucket = bucket_of(task.name) if limited else None
        if bucket:
            consumer._limit_task(request, bucket, 1)
            return
        reserve(request)
        for callback in callbacks:
            callback(request)
        handle(request)

    return on_message
