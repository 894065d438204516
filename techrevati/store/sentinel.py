"""Redis by Sentinel: who is the master now is asked again for each connection that is made.

    sentinel://[user:password@]a:26379,b:26379/0?master_name=m ──▶ SentinelAddress
    SentinelAddress ──ask a, ask b──▶ the master's address ──▶ connection

redis-py finds the master; this module says how it is asked, and reads the URL.  Whoever loses a connection makes
another, and so finds the master that came after a failover.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from redis.asyncio import sentinel as asynchronous
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from techrevati.store.errors import BadAddress

SCHEME = "sentinel"
DEFAULT_MASTER = "mymaster"
PORT = 26379
ASK = 0.5
"""Seconds for a sentinel to answer: one whose machine is gone may not use up the patience of a call."""
_KNOWN = ("master_name", "sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Which sentinels to ask for which master, and what to say to either."""

    nodes: tuple[tuple[str, int], ...]
    master_name: str = DEFAULT_MASTER
    db: int = 0
    username: str = ""
    password: str = ""
    sentinel_username: str = ""
    sentinel_password: str = ""

    def shown(self) -> str:
        """Give it as a URL without its passwords."""
        user = f"{quote(self.username)}:***@" if self.password else ""
        hosts = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.nodes)
        return f"{SCHEME}://{user}{hosts}/{self.db}?master_name={self.master_name}"

    def asking(self) -> dict[str, Any]:
        """Give what a connection to a sentinel is made with."""
        return {
            "username": self.sentinel_username or None,
            "password": self.sentinel_password or None,
            "socket_timeout": ASK,
            "socket_connect_timeout": ASK,
        }


def is_sentinel(url: str) -> bool:
    return url.startswith(f"{SCHEME}://")


def parse(url: str) -> SentinelAddress:
    """Read a Sentinel URL; nodes are separated by ``,``, or by ``;`` as the broker's.

    What is said behind any node holds for all: user and password (the master's), database, options.

    Raises:
        BadAddress: saying what of it cannot be read.
    """
    nodes, options = list[tuple[str, int]](), dict[str, str]()
    user, database = "", ""
    for part in filter(None, url.split(";")):
        try:
            split = urlsplit(part if "://" in part else f"{SCHEME}://{part}")
        except ValueError as error:
            raise BadAddress(_masked(url), str(error)) from None
        if split.scheme != SCHEME:
            raise BadAddress(_masked(url), f"a node begins with {split.scheme}://")
        credentials, _, hosts = split.netloc.rpartition("@")
        user = user or credentials
        database = database or split.path.strip("/")
        options |= dict(parse_qsl(split.query, keep_blank_values=True))
        nodes += [_node(url, host) for host in hosts.split(",") if host]
    if not nodes:
        raise BadAddress(_masked(url), "it names no sentinel")
    if unknown := sorted(options.keys() - set(_KNOWN)):
        raise BadAddress(_masked(url), f"option {unknown[0]!r} is none of {', '.join(_KNOWN)}")
    if database and not database.isdecimal():
        raise BadAddress(_masked(url), f"database {database!r} is no number")
    name, _, password = user.partition(":")
    return SentinelAddress(
        tuple(dict.fromkeys(nodes)),
        options.get("master_name") or DEFAULT_MASTER,
        int(database or 0),
        unquote(name),
        unquote(password),
        options.get("sentinel_username", ""),
        options.get("sentinel_password", ""),
    )


def master_pool(url: str, **options: Any) -> SentinelConnectionPool:
    """Make a pool whose connections are to the master of the moment."""
    at = parse(url)
    # Once more, at once: a connection to a sentinel that was idle may have been closed meanwhile.
    sentinels = Sentinel(list(at.nodes), sentinel_kwargs={**at.asking(), "retry": Retry(NoBackoff(), 1)})
    return SentinelConnectionPool(at.master_name, sentinels, **_to_master(at), **options)


def async_master_pool(url: str, **options: Any) -> asynchronous.SentinelConnectionPool:
    """Make `master_pool` for an event loop."""
    at = parse(url)
    how = {**at.asking(), "retry": AsyncRetry(NoBackoff(), 0)}
    sentinels = _AsyncSentinel(list(at.nodes), sentinel_kwargs=how)  # type: ignore[no-untyped-call]
    return asynchronous.SentinelConnectionPool(at.master_name, sentinels, **_to_master(at), **options)


class _AsyncSentinel(asynchronous.Sentinel):
    """Hangs up on the sentinels when they have answered: nobody else would, and they are asked once a failover."""

    async def discover_master(self, service_name: str) -> Any:
        try:
            return await super().discover_master(service_name)
        finally:
            for client in self.sentinels:
                await client.aclose()


def _to_master(at: SentinelAddress) -> dict[str, Any]:
    return {"db": at.db, "username": at.username or None, "password": at.password or None}


def _node(url: str, text: str) -> tuple[str, int]:
    try:
        split = urlsplit(f"//{text}")
        host, port = split.hostname, split.port
    except ValueError as error:
        raise BadAddress(_masked(url), f"sentinel {text!r}: {error}") from None
    if not host:
        raise BadAddress(_masked(url), f"sentinel {text!r} has no host")
    return host, port or PORT


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _masked(url: str) -> str:
    """Give what may be shown of a URL that cannot be read."""
    return f"{SCHEME}://…" if "@" in url or "password" in url else url
