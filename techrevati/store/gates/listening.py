"""News of all gates of a process, over one connection: messages, and pings that prove there were none.

    PUBLISH news:{gate} ──▶ thread ──▶ View.hear
    PING ──▶ the same connection ──▶ View.confirm: whatever was said before it has been heard

One thread serves sync and async gates alike: what it does is write fields.
"""

import contextlib
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

from redis.exceptions import RedisError

from techrevati.store.sync import connect

log = logging.getLogger(__name__)

HELLO = "techrevati:gates"
"""A channel nobody speaks on: with it a connection is subscribed from its first moment."""
AGAIN, IDLE, SOON = 0.2, 1.0, 0.02
"""Seconds until a lost connection is made anew; between two looks while no gate is asked; between two pings."""
USED = 2.0
"""Seconds after its last use for which a view is kept fresh."""


class Hearer(Protocol):
    """Who wants the news of one channel: the view of a breaker, or an ear for slots."""

    channel: str
    staleness: float

    @property
    def used_at(self) -> float: ...
    def hear(self, message: str) -> None: ...
    def follow(self, since: float | None) -> None: ...
    def confirm(self, asked: float) -> None: ...
    def restarted(self, before: str, after: str) -> None: ...


class NewsListener:
    """Keeps the views of one Redis fresh, from its own daemon thread; begins with the first view."""

    def __init__(self, url: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._url, self._monotonic = url, monotonic
        self._views: dict[str, list[Hearer]] = defaultdict(list)
        self._followed: set[str] = set()
        self._lock = threading.RLock()
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._server = ""
        self._next_ping = 0.0
        self._pid = 0

    def watch(self, view: Hearer) -> None:
        """Keep a view fresh from now on.  Never blocks: the thread connects."""
        with self._lock:
            fresh = view.channel not in self._views
            self._views[view.channel].append(view)
            if self._thread is None or self._pid != os.getpid():
                self._begin()
            elif fresh:
                self._say("SUBSCRIBE", view.channel)
            elif view.channel in self._followed:
                view.follow(self._monotonic())

    def leave(self, view: Hearer) -> None:
        with self._lock, contextlib.suppress(ValueError):
            views = self._views[view.channel]
            views.remove(view)
            if not views:
                del self._views[view.channel]
                self._followed.discard(view.channel)
                self._say("UNSUBSCRIBE", view.channel)

    def ask(self) -> None:
        """Ping now: somebody looked at a view that was stale."""
        if self._pid != os.getpid():  # forked: the thread and the connection are the parent's
            with self._lock:
                self._begin()
        elif self._monotonic() >= self._next_ping:
            self._next_ping = self._monotonic() + SOON
            self._ping()

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            self._say("UNSUBSCRIBE", HELLO)  # its answer wakes the thread
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(3)
        self._hang_up()

    def _begin(self) -> None:
        self._connection, self._pid = None, os.getpid()
        self._unfollow()
        self._thread = threading.Thread(target=self._run, name="techrevati-gate-news", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._connect()
                while not self._closed.is_set():
                    self._hear()
            except Exception as error:  # noqa: BLE001 - whatever became of the connection, another is made
                log.debug("gate news lost, trying again: %r", error)
                self._hang_up()
                self._closed.wait(AGAIN)

    def _connect(self) -> None:
        connection = connect(self._url, socket_timeout=5).connection_pool.make_connection()
        try:
            connection.connect()
            connection.send_command("INFO", "server", check_health=False)
            self._met(str(connection.read_response()))
        except BaseException:
            connection.disconnect()
            raise
        with self._lock:
            self._connection = connection
            self._say("SUBSCRIBE", HELLO, *self._views)
        self._ping()

    def _met(self, info: str) -> None:
        server = next((line[7:].strip() for line in info.splitlines() if line.startswith("run_id:")), "")
        if self._server and server != self._server:
            for view in self._every():
                view.restarted(self._server, server)
        self._server = server

    def _hear(self) -> None:
        now = self._monotonic()
        views = [view for view in self._every() if now - view.used_at < USED and view.staleness > 0]
        if now >= self._next_ping:
            if views:
                self._next_ping = now + min(view.staleness for view in views) / 2
                self._ping()
            else:
                self._next_ping = now
        wait = max(0.001, self._next_ping - now) if views else IDLE
        if not self._connection.can_read(timeout=wait):
            return
        reply = self._connection.read_response(disconnect_on_error=False)
        if reply[0] == "message":
            for view in list(self._views.get(reply[1], ())):
                view.hear(reply[2])
        elif reply[0] == "subscribe":
            with self._lock:
                self._followed.add(reply[1])
                for view in self._views.get(reply[1], ()):
                    view.follow(self._monotonic())
        elif reply[0] == "pong" and reply[1]:
            asked = float(reply[1])
            for view in self._every():
                view.confirm(asked)

    def _every(self) -> list[Hearer]:
        with self._lock:
            return [view for views in self._views.values() for view in views]

    def _unfollow(self) -> None:
        self._followed.clear()
        for view in self._every():
            view.follow(None)

    def _ping(self) -> None:
        self._say("PING", repr(self._monotonic()))

    def _say(self, *command: str) -> None:
        with self._lock:
            if self._connection is not None:  # else the thread subscribes to all there is
                with contextlib.suppress(RedisError, OSError):
                    self._connection.send_command(*command, check_health=False)

    def _hang_up(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            self._unfollow()
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                connection.disconnect()
