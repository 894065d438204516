"""Broker URLs and transport options: what the user writes, what kombu wants.

redis:// rediss:// unix:// sentinel:// amqp://  ──broker_url──▶  a URL kombu opens
                                              ──broker_options──▶  its transport options
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from techrevati.runtime.errors import TechrevatiError
from techrevati.store.sentinel import parse

REDIS = frozenset({"redis", "rediss", "unix", "redis+socket", "sentinel"})
AMQP = frozenset({"amqp", "amqps", "pyamqp"})

REDIS_OPTIONS: Mapping[str, object] = {
    # The broker keeps no account of tickets: redelivery is the sweeper's job (seconds), not the
    # visibility timeout's (an hour).  2.6x the rate, and a broker restart cannot kill the worker.
    "ack_emulation": False,
    # One list per queue: priorities on Redis are strict and starve; ours are decided at the claim.
    "priority_steps": [0],
    "queue_order_strategy": "round_robin",
    # JSON is text already; base64 would add a third and the time to undo it.
    "body_encoding": "utf-8",
    # Per channel; the default of 10 turns bursts of control replies into MaxConnectionsError.
    "max_connections": 50,
    # None would let a publish hang for ever on a peer that vanished.
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
    # A blind retry makes ambiguous duplicates and forbids kombu's safe batches.
    "retry_on_timeout": False,
}


class UnsupportedBroker(TechrevatiError):
    """A broker URL whose scheme this project does not drive."""

    def __init__(self, scheme: str) -> None:
        super().__init__(scheme)
        self.scheme = scheme

    def __str__(self) -> str:
        return (
            f"broker URL scheme {self.scheme!r} is not supported; "
            "use redis://, rediss://, unix://, sentinel:// or amqp://"
        )


def _scheme(url: str) -> str:
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in REDIS and scheme not in AMQP:
        raise UnsupportedBroker(scheme or url)
    return scheme


def is_redis(url: str) -> bool:
    """Tell whether this broker is Redis (plain, TLS, socket or Sentinel)."""
    return _scheme(url) in REDIS


def broker_url(url: str) -> str:
    """Give the URL in the form kombu opens.

    ``unix://[:password@]/path?db=N`` becomes ``redis+socket://…?virtual_host=N``; a Sentinel URL has one
    URL per node, and what concerns the sentinels travels in the transport options; the rest stays as it is.

    Raises:
        UnsupportedBroker: kombu may know the scheme, this project has not been held to it.
        BadAddress: a Sentinel URL that cannot be read.
    """
    scheme = _scheme(url)
    if scheme == "unix":
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        db = query.pop("db", "0")
        # Not urlunsplit: it drops the // of a URL without a host.
        return f"redis+socket://{parts.netloc}{parts.path}?{urlencode({'virtual_host': db, **query})}"
    if scheme == "sentinel":
        at = parse(url)
        user = f"{quote(at.username)}:{quote(at.password, safe='')}@" if at.username or at.password else ""
        hosts = (f"[{host}]" if ":" in host else host for host, _ in at.nodes)
        return ";".join(
            f"sentinel://{user}{host}:{port}/{at.db}" for host, (_, port) in zip(hosts, at.nodes, strict=True)
        )
    return url


def broker_options(url: str) -> dict[str, object]:
    """Give the transport options for this broker, a fresh dict each time."""
    scheme = _scheme(url)
    if scheme in AMQP:
        # Confirmed publishes: an ``apply_async`` that returned has reached the broker.
        return {"confirm_publish": True}
    options = {**REDIS_OPTIONS}
    if scheme in {"unix", "redis+socket"}:
        for tcp_only in ("socket_connect_timeout", "socket_keepalive"):
            del options[tcp_only]
    if scheme == "sentinel":
        at = parse(url)
        options["master_name"] = at.master_name
        options["sentinel_kwargs"] = {name: value for name, value in at.asking().items() if value is not None}
    return options
