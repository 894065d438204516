"""The store for code that may block: scripts and commands over a small pool of connections."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import redis
from redis import exceptions as theirs
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE
from redis.retry import Retry

from techrevati.store.calls import Arg, Call
from techrevati.store.scripts import PROTOCOL, script
from techrevati.store.wire import RETRIABLE, Ring, rung, translate

T = TypeVar("T")

_DECODED: dict[str, Any] = {}
_AS_STORED: dict[str, Any] = {NEVER_DECODE: True}


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
    return redis.Redis.from_url(url, **settings)


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
        # Replies as Redis sends them, the same for both stores: no reshaping by command name.
        self._raw = redis.Redis(connection_pool=self.redis.connection_pool)
        self._raw.response_callbacks.clear()
        self._now_us, self._monotonic, self._sleep = now_us, monotonic, sleep

    def run(self, call: Call[T], *, patience: float | None = None) -> T:
        """Run one call; `patience` (s) for this one.

        Raises:
            StoreUnreachable: Redis did not answer within the patience.
            StoreDenied: it refused the credentials.
        """
        lua = script(call.script)
        now = "" if self._now_us is None else str(self._now_us())
        args = (1, call.keys.clock, PROTOCOL, now, *call.args)
        how = _AS_STORED if call.binary else _DECODED

        def once() -> Any:
            try:
                return self._raw.execute_command("EVALSHA", lua.sha, *args, **how)
            except theirs.NoScriptError:
                return self._raw.execute_command("EVAL", lua.source, *args, **how)

        reply = self._insist(once, call.script, patience)
        rung(call, reply, self.ring)
        return call.parse(reply)

    def run_then(self, call: Call[T], command: Sequence[Arg]) -> tuple[T, Any]:
        """Run one call and a command behind it on the same connection: what WAIT and WAITAOF need.

        If the connection breaks between the two, both are sent again.
        """
        lua = script(call.script)
        now = "" if self._now_us is None else str(self._now_us())
        args = (1, call.keys.clock, PROTOCOL, now, *call.args)
        how = _AS_STORED if call.binary else _DECODED

        def once() -> list[Any]:
            for verb, what in (("EVALSHA", lua.sha), ("EVAL", lua.source)):
                pipe = self._raw.pipeline(transaction=False)
                pipe.execute_command(verb, what, *args, **how)
                pipe.execute_command(*command)
                replies: list[Any] = pipe.execute(raise_on_error=False)
                if not isinstance(replies[0], theirs.NoScriptError):
                    break
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

        reply, after = self._insist(once, call.script)
        return call.parse(reply), after

    def run_many(self, calls: Sequence[Call[T]]) -> list[T]:
        """Run independent calls in one round trip; answers in their order."""
        now = "" if self._now_us is None else str(self._now_us())

        def once() -> list[Any]:
            for whole in (False, True):
                pipe = self._raw.pipeline(transaction=False)
                for call in calls:
                    lua = script(call.script)
                    verb, what = ("EVAL", lua.source) if whole else ("EVALSHA", lua.sha)
                    how = _AS_STORED if call.binary else _DECODED
                    pipe.execute_command(verb, what, 1, call.keys.clock, PROTOCOL, now, *call.args, **how)
                replies: list[Any] = pipe.execute(raise_on_error=False)
                # A script the server does not know: all of them again, each is made for it.
                if not any(isinstance(reply, theirs.NoScriptError) for reply in replies):
                    break
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

        replies = self._insist(once, calls[0].script) if calls else []
        for call, reply in zip(calls, replies, strict=True):
            rung(call, reply, self.ring)
        return [call.parse(reply) for call, reply in zip(calls, replies, strict=True)]

    def command(self, *args: Arg | float) -> Any:
        """Run one plain, idempotent command."""
        return self._insist(lambda: self._raw.execute_command(*args), str(args[0]))

    def commands(self, commands: Sequence[Sequence[Arg | float]]) -> list[Any]:
        """Run plain, idempotent commands in one round trip."""

        def once() -> list[Any]:
            pipe = self._raw.pipeline(transaction=False)
            for args in commands:
                pipe.execute_command(*args)
            replies: list[Any] = pipe.execute()
            return replies

        return self._insist(once, "pipeline") if commands else []

    def _insist(self, once: Callable[[], T], what: str, patience: float | None = None) -> T:
        begun, wait = self._monotonic(), 0.05
        limit = self._patience if patience is None else patience
        while True:
            try:
                return once()
            except theirs.AuthenticationError as error:
                raise translate(error, self.url, what) from error
            except RETRIABLE as error:
                if self._monotonic() - begun + wait > limit:
                    raise translate(error, self.url, what) from error
                self._sleep(wait)
                wait = min(wait * 2, 1.0)
            except theirs.RedisError as error:
                raise translate(error, self.url, what) from error

    def close(self) -> None:
        self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
