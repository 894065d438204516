"""kombu's Redis transport, popping a handful of tickets per wake-up.

    BRPOP ─▶ one ticket ─(it was there at once: a backlog)─▶ RPOP key n ─▶ up to `BATCH` more

Stock kombu pays a full turn of its event loop for each message.  Only the read differs here;
publishing, declaring and restoring are kombu's.
"""

# mypy: disallow-untyped-calls=False
# kombu says it is typed, and most of its functions are not.

import logging
from collections.abc import Callable
from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from msgspec import DecodeError
from msgspec.json import decode

log = logging.getLogger(__name__)

# Enough to spread the cost of a loop turn (16: 78 us a ticket, 32: 50, 64: 58 on two cores); few enough
# that sibling workers share a burst.
BATCH = 32
# A reply that took longer than this had to wait for a ticket: there is no backlog to fetch.
BACKLOG_WITHIN = 0.002  # s


def decode_message(raw: bytes | str) -> Any:
    """Decode a message as kombu does, several times faster when it holds plain JSON."""
    data = raw.encode() if isinstance(raw, str) else raw
    if b"__type__" in data:  # kombu's own tagging of dates, UUIDs and bytes
        return loads(bytes_to_str(data))
    try:
        return decode(data)
    except DecodeError:  # NaN and friends, which Python's json allows
        return loads(bytes_to_str(data))


def room(batch: int, *limits: int | None) -> int:
    """Count the tickets to ask for: the least of `batch` and every limit there is."""
    return max(0, min([batch, *(limit for limit in limits if limit is not None)]))


class _PlainMessage(virtual.Message):
    def serializable(self) -> dict[str, Any]:
        """Give the message to put back on the queue, its body as the text it came as."""
        message: dict[str, Any] = super().serializable()
        if isinstance(message["body"], bytes):
            message["body"] = message["body"].decode()
        return message


class _TicketQoS(virtual.QoS):
    """What was delivered and not acknowledged, as kombu keeps it where the broker does not."""

    def restore_unacked(self) -> list[Any]:
        """Put tickets back; those a lost connection cannot take are let go, not dumped into a file per reconnect."""
        lost: list[Any] = super().restore_unacked()
        if lost:
            log.warning("%d tickets not put back, the sweep sends them again: %r", len(lost), lost[0][0])
        return []


class _Batched:
    """The read side of a channel; mixed into kombu's two Redis channels."""

    Message = _PlainMessage
    QoS: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.QoS is virtual.QoS:  # kombu's choice without ack emulation
            self.QoS = _TicketQoS

    # Set by a worker step: how many tickets the pool could start now.
    free_places: Callable[[], int] | None = None

    def _brpop_read(self: Any, **options: Any) -> bool:
        connection = self.client.connection
        waited = monotonic() - (self._brpop_sent_at or 0.0)
        try:
            try:
                reply = self.client.parse_response(connection, "BRPOP", **options)
            except self.connection_errors:
                connection.disconnect()  # the next turn of the loop connects again
                raise
            if not reply:
                raise Empty
            key, first = reply
            queue = bytes_to_str(key).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            deliver = self.connection._deliver
            deliver(decode_message(first), queue)
            if waited < BACKLOG_WITHIN:
                for item in self._pop_more(connection, key):
                    deliver(decode_message(item), queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _pop_more(self: Any, connection: Any, key: bytes) -> list[bytes]:
        prefetch = self.qos.can_consume_max_estimate() if self.qos.prefetch_count else None
        count = room(BATCH - 1, prefetch, self.free_places() if self.free_places else None)
        if not count or not self.qos.can_consume():
            return []
        try:
            connection.send_command("RPOP", key, count)
            return self.client.parse_response(connection, "RPOP") or []
        except self.connection_errors:
            connection.disconnect()
            raise


class TicketChannel(_Batched, stock.Channel):  # type: ignore[misc]  # kombu is untyped
    """Redis channel that pops in batches."""


class TicketSentinelChannel(_Batched, stock.SentinelChannel):  # type: ignore[misc]  # kombu is untyped
    """The same behind Sentinel."""


class TicketTransport(stock.Transport):
    Channel = TicketChannel


class TicketSentinelTransport(stock.SentinelTransport):
    Channel = TicketSentinelChannel


# By kombu's own name of the transport that a URL selects.
BATCHED = {
    "redis": f"{__name__}:TicketTransport",
    "rediss": f"{__name__}:TicketTransport",
    "sentinel": f"{__name__}:TicketSentinelTransport",
}
