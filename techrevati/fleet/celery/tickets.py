"""Tickets: the Celery messages that say "there is work for this role in this partition".

capture_template ─▶ TicketTemplate ─▶ Lua: gsub @TICKET@, LPUSH      (broker = the store's Redis)
send_ticket      ─▶ apply_async                                      (any other broker)
"""

# mypy: disallow-untyped-calls=False
# kombu says it is typed, and most of its functions are not.

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.transport import redis as redis_transport
from kombu.utils.json import dumps, loads
from opentelemetry import context, trace

from techrevati.fleet.celery.async_task import AsyncTask
from techrevati.runtime.errors import TechrevatiError

TASK = "techrevati.turn"
PLACEHOLDER = "@TICKET@"


class Serve(Protocol):
    """Claim and run turns for one ticket; must not raise for a fault of the infrastructure."""

    async def __call__(self, role: str, partition: int, draining: Callable[[], bool]) -> None: ...


class ServeSync(Protocol):
    """The same for a pool without a loop (prefork, threads)."""

    def __call__(self, role: str, partition: int, draining: Callable[[], bool]) -> None: ...


class NothingServes(TechrevatiError):
    """A ticket arrived in a process that was never given the engine."""

    def __init__(self, app: str, attribute: str) -> None:
        super().__init__(app, attribute)
        self.app, self.attribute = app, attribute

    def __str__(self) -> str:
        return f"Celery app {self.app!r} has no {self.attribute}: build it with Fleet(...).celery"


class BadTemplate(TechrevatiError):
    """What the installed kombu publishes cannot be filled in by replacing one token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot capture a ticket: {self.reason}; send tickets by apply_async instead"


def queue_name(fleet: str, role: str) -> str:
    """Name the Celery queue of a role."""
    return f"{fleet}.role.{role}"


def role_queue(fleet: str, role: str) -> Queue:
    """Describe the queue of a role, durable where the broker has a notion of it."""
    name = queue_name(fleet, role)
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


class TicketTask(AsyncTask):
    """Serve one ticket; what that means is injected: ``app.techrevati_serve``."""

    name = TASK

    async def arun(self, request: Any, role: str, partition: int) -> None:
        app = self._get_app()
        serve: Serve | None = app.techrevati_serve
        if serve is None:
            raise NothingServes(app.main, "techrevati_serve")
        await serve(role, partition, app.techrevati_draining)

    def run(self, role: str, partition: int) -> None:
        app = self._get_app()
        serve: ServeSync | None = app.techrevati_serve_sync
        if serve is None:
            raise NothingServes(app.main, "techrevati_serve_sync")
        serve(role, partition, app.techrevati_draining)


@dataclass(frozen=True, slots=True)
class TicketTemplate:
    """A ready message for one (role, partition), but for its id."""

    queue: str  # the list to LPUSH to
    message: str  # holds `PLACEHOLDER` wherever the id goes

    def fill(self, ticket_id: str) -> bytes:
        """Give the bytes to push; ids are plain words such as ``3-17``."""
        return self.message.replace(PLACEHOLDER, ticket_id).encode()


class _Recorder:
    """Stands where the channel expects a Redis client, and keeps what would be pushed."""

    def __init__(self) -> None:
        self.pushed: list[tuple[str, str]] = []

    def ping(self) -> bool:
        return True

    def lpush(self, key: str, value: str) -> None:
        self.pushed.append((key, value))


class _CaptureChannel(redis_transport.Channel):
    def _create_client(self, asynchronous: bool = False) -> Any:
        return self.connection.recorder

    def _next_delivery_tag(self) -> str:
        return PLACEHOLDER

    def close(self) -> None:
        """There is nothing to close: no connection was opened."""


class _CaptureTransport(redis_transport.Transport):
    Channel = _CaptureChannel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.recorder = _Recorder()


def capture_template(app: Any, role: str, partition: int) -> TicketTemplate:
    """Record the message that ``apply_async`` would push for this role and partition.

    A real publish by the app's own producer, configuration and serializer; only the Redis client
    at its far end is a recorder.

    Raises:
        BadTemplate: the id does not appear as plain text, or more than one message was pushed.
    """
    options = {**app.conf.broker_transport_options}
    connection = Connection(transport=_CaptureTransport, transport_options=options)
    producer = app.amqp.Producer(connection, auto_declare=False)
    task = app.tasks[TASK]
    with _untraced():
        task.apply_async(
            (role, partition),
            task_id=PLACEHOLDER,
            producer=producer,
            queue=role_queue(app.main, role),
            declare=[],
            retry=False,
        )
    pushed = connection.transport.recorder.pushed
    if len(pushed) != 1:
        raise BadTemplate(f"kombu pushed {len(pushed)} messages for one ticket")
    ((queue, message),) = pushed
    if PLACEHOLDER not in message:
        raise BadTemplate("the id is not plain text in the message")
    return TicketTemplate(queue, _without_extra_headers(message, task.extra_headers))


@contextmanager
def _untraced() -> Iterator[None]:
    """Keep an instrumented publish from starting a trace: nothing is sent here."""
    unsampled = trace.SpanContext(1, 1, is_remote=False, trace_flags=trace.TraceFlags(trace.TraceFlags.DEFAULT))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(unsampled)))
    try:
        yield
    finally:
        context.detach(token)


def _without_extra_headers(message: str, own: Mapping[str, Any]) -> str:
    # What a signal receiver added belongs to one publish (a trace context), not to every ticket.
    fields = loads(message)
    headers = fields["headers"]
    extra = headers.keys() - {"lang", "task", "id", *own}
    if not extra:
        return message
    fields["headers"] = {name: value for name, value in headers.items() if name not in extra}
    return str(dumps(fields))


def send_ticket(app: Any, role: str, partition: int, *, ticket_id: str | None = None) -> None:
    """Send one ticket through the broker, on a connection of the app's pool."""
    app.tasks[TASK].apply_async((role, partition), task_id=ticket_id, queue=role_queue(app.main, role))
