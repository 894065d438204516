"""The store for code that may block: scripts and commands over a small pool of connections."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import redis
from redis import exceptions as theirs
from redis.backoff import NoBackoff
from redis.retry import Retry

from techrevati.store.calls import Arg, Call
from techrevati.store.lines import Lines
from techrevati.store.sentinel import is_sentinel, master_pool
from techrevati.store.wire import RETRIABLE, Ring, answer_of, in_pieces, pack_command, replies_to, rung, translate

T = TypeVar("T")


def connect(url: str, **options: Any) -> redis.Redis:
    """Make a client for a URL; nothing is sent before the first command.

    Retries are ours (the scripts are made to be sent twice), so redis-py's own are off.
    """
    settings: dict[str, Any] = {
        "decode_responses": True,
        "protocol": 2,  # flat arrays for every command, from every server
        "socket_connect_timeout": 5,
        "socket_timeout": 10,
        "retry": Retry(NoBackoff(), 0),
        **options,
    }
    if not url.startswith("unix://"):
        settings.setdefault("socket_keepalive", True)
    if is_sentinel(url):
        return redis.Redis.from_pool(master_pool(url, **settings))
    return redis.Redis.from_url(url, **settings)


def _whole(replies: list[Any]) -> list[Any]:
    """Give replies none of which is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


class SyncStore:
    """Runs calls, one round trip each, safe for threads.

    A call whose reply was lost is sent again, with the same ids, until `patience` seconds have passed.
    """

    def __init__(
        self,
        url: str,
        *,
        patience: float = 5.0,
        ring: Ring | None = None,
        now_us: Callable[[], int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        client: redis.Redis | None = None,
    ) -> None:
        self.url, self.ring, self._patience = url, ring, patience
        self.redis = client or connect(url)
        self._lines = Lines(self.redis.connection_pool)
        self._now_us, self._monotonic, self._sleep = now_us, monotonic, sleep

    def run(self, call: Call[T], *, patience: float | None = None) -> T:
        """Run one call; `patience` (s) for this one, also with a server that accepts and never answers.

        Raises:
            StoreUnreachable: Redis did not answer within the patience.
            StoreDenied: it refused the credentials.
        """
        begun = self._monotonic()
        try:  # nearly always all there is to it
            now = "" if self._now_us is None else str(self._now_us())
            reply = answer_of(call, self._lines.exchange(in_pieces(call, now), replies_to(call), patience))
        except theirs.RedisError as error:
            reply = error
        if isinstance(reply, Exception):
            (reply,) = self._insist(lambda: self._say([call], within=patience), call.script, patience, (reply, begun))
        if self.ring is not None:
            rung(call, reply, self.ring)
        return call.parse(reply)

    def run_then(self, call: Call[T], command: Sequence[Arg]) -> tuple[T, Any]:
        """Run one call and a command behind it on the same connection: what WAIT and WAITAOF need.

        If the connection breaks between the two, both are sent again.
        """
        reply, after = self._insist(lambda: self._say([call], pack_command(command)), call.script)
        return call.parse(reply), after

    def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """Run independent calls in one round trip; answers in their order."""
        replies = self._insist(lambda: self._say(calls), calls[0].script) if calls else []
        for call, reply in zip(calls, replies, strict=True):
            rung(call, reply, self.ring)
        return [call.parse(reply) for call, reply in zip(calls, replies, strict=True)]

    def command(self, *args: Arg | float, binary: bool = False) -> Any:
        """Run one plain, idempotent command; `binary`: its reply is bytes as they are stored."""
        return self.commands([args], binary=binary)[0]

    def commands(self, commands: Sequence[Sequence[Arg | float]], *, binary: bool = False) -> list[Any]:
        """Run plain, idempotent commands in one round trip."""
        if not commands:
            return []
        data = [pack_command(command) for command in commands]
        what = str(commands[0][0]) if len(commands) == 1 else "pipeline"
        return self._insist(lambda: _whole(self._lines.exchange(data, [binary] * len(commands))), what)

    def _say(self, calls: Sequence[Call[Any]], then: bytes = b"", within: float | None = None) -> list[Any]:
        """Send calls, and maybe a packed command behind them, in one write."""
        now = "" if self._now_us is None else str(self._now_us())
        wanted = [replies_to(call) for call in calls]
        binary = [as_stored for one in wanted for as_stored in one] + [False] * bool(then)
        for whole in (False, True):
            data = [*(piece for call in calls for piece in in_pieces(call, now, whole=whole)), then]
            came = iter(self._lines.exchange(data, binary, within))
            replies = [answer_of(call, [next(came) for _ in one]) for call, one in zip(calls, wanted, strict=True)]
            replies += came
            # A script the server does not know: all of them again, each is made for it.
            if not any(isinstance(reply, theirs.NoScriptError) for reply in replies):
                break
        return _whole(replies)

    def _insist(
        self,
        once: Callable[[], T],
        what: str,
        patience: float | None = None,
        before: tuple[Exception | None, float] | None = None,
    ) -> T:
        """Do it, and again where that may help; `before`: how it ended the first time, and when that began."""
        failed, begun = before or (None, self._monotonic())
        wait, limit = 0.05, self._patience if patience is None else patience
        while True:
            try:
                if failed is not None and not isinstance(failed, theirs.NoScriptError):
                    raise failed
                return once()
            except theirs.AuthenticationError as error:
                raise translate(error, self.url, what) from error
            except RETRIABLE as error:
                if self._monotonic() - begun + wait > limit:
                    raise translate(error, self.url, what) from error
                self._sleep(wait)
                failed, wait = None, min(wait * 2, 1.0)
            except theirs.RedisError as error:
                raise translate(error, self.url, what) from error

    def close(self) -> None:
        self._lines.close()
        self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
