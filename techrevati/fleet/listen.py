"""Who waits for what, over one connection per process: many channels, one subscription socket.

    PUBLISH wake:{t}:<run> ──▶ one pub/sub connection ──▶ whoever waits on that channel

Pub/sub may lose messages, so a listener also hears ``None`` after each reconnect, and every waiter looks
again by itself from time to time.
"""

import asyncio
import contextlib
import logging
import math
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError

from techrevati.store.aio import async_pool
from techrevati.store.sync import connect

log = logging.getLogger(__name__)

Hear = Callable[[str | None], None]
"""Called with a message's payload, or None when messages may have been missed."""

HELLO = "techrevati:hello"
"""A channel that nobody speaks on: with it a connection is subscribed from its first moment to its last."""
AGAIN = 0.2
"""Seconds until a lost connection is made anew."""


class Audience:
    """Listeners by channel; says which channels begin and end."""

    def __init__(self) -> None:
        self._ears: dict[str, list[Hear]] = defaultdict(list)

    def add(self, channel: str, hear: Hear) -> bool:
        """Add a listener; True if the channel is new."""
        self._ears[channel].append(hear)
        return len(self._ears[channel]) == 1

    def remove(self, channel: str, hear: Hear) -> bool:
        """Remove a listener; True if it was the channel's last."""
        self._ears[channel].remove(hear)
        if self._ears[channel]:
            return False
        del self._ears[channel]
        return True

    def channels(self) -> list[str]:
        return list(self._ears)

    def tell(self, channel: str, payload: str) -> None:
        for hear in list(self._ears.get(channel, ())):
            hear(payload)

    def hear(self, reply: Any) -> None:
        """Take what a subscribed connection sent: [kind, channel, payload]."""
        if reply[0] == "message":
            self.tell(reply[1], reply[2])

    def missed(self) -> None:
        for ears in list(self._ears.values()):
            for hear in list(ears):
                hear(None)


class AsyncListener:
    """Channels for an event loop.

    Only the reading task makes and ends the connection; whoever listens or leaves just writes to it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._audience = Audience()
        self._pool: ConnectionPool | None = None
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def listen(self, channel: str, hear: Hear) -> None:
        """Hear a channel from when this returns; `hear` is called on the loop."""
        fresh = self._audience.add(channel, hear)
        async with self._opening:
            if self._task is None:
                with contextlib.suppress(RedisError, OSError):  # the reader tries again
                    await self._connect()
                self._task = asyncio.get_running_loop().create_task(self._read())
            elif fresh:
                await self._say("SUBSCRIBE", channel)

    async def leave(self, channel: str, hear: Hear) -> None:
        if self._audience.remove(channel, hear):
            await self._say("UNSUBSCRIBE", channel)

    @asynccontextmanager
    async def waiting(self, channel: str) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set whenever the channel speaks, or may have."""
        event = asyncio.Event()

        def hear(_: str | None) -> None:
            event.set()

        await self.listen(channel, hear)
        try:
            yield event
        finally:
            await self.leave(channel, hear)

    async def _say(self, *command: str) -> None:
        connection = self._connection
        if connection is not None and connection.is_connected:  # else the reader subscribes to all there is
            with contextlib.suppress(RedisError, OSError):
                await connection.send_command(*command, check_health=False)

    async def _connect(self) -> None:
        if self._pool is None:
            self._pool = async_pool(self._url)
        connection: AbstractConnection = self._pool.make_connection()
        await connection.connect()
        self._connection = connection
        await self._say("SUBSCRIBE", HELLO, *self._audience.channels())

    async def _read(self) -> None:
        while True:
            try:
                if self._connection is None:
                    await self._connect()
                    self._audience.missed()
                assert self._connection is not None
                while True:
                    self._audience.hear(await self._connection.read_response(timeout=math.inf))
            except (RedisError, OSError) as error:
                log.debug("subscription lost, trying again: %s", error)
                await self._hang_up()
                await asyncio.sleep(AGAIN)

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._hang_up()


class ThreadListener:
    """Channels for threads: one daemon thread reads, many wait."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._audience = Audience()
        self._lock = threading.RLock()
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @contextmanager
    def waiting(self, channel: str) -> Iterator[threading.Event]:
        """Give an event that is set whenever the channel speaks, or may have."""
        event = threading.Event()

        def hear(_: str | None) -> None:
            event.set()

        with self._lock:
            fresh = self._audience.add(channel, hear)
            if self._thread is None:
                self._connect()
                self._thread = threading.Thread(target=self._read, name="techrevati-listener", daemon=True)
                self._thread.start()
            elif fresh:
                self._say("SUBSCRIBE", channel)
        try:
            yield event
        finally:
            with self._lock:
                if self._audience.remove(channel, hear):
                    self._say("UNSUBSCRIBE", channel)

    def _say(self, *command: str) -> None:
        if self._connection is not None and self._connection.is_connected:  # else the reader subscribes to all
            with contextlib.suppress(RedisError, OSError):
                self._connection.send_command(*command, check_health=False)

    def _connect(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            connection = connect(self._url, socket_timeout=None).connection_pool.make_connection()
            connection.connect()
            self._connection = connection
            self._say("SUBSCRIBE", HELLO, *self._audience.channels())

    def _read(self) -> None:
        while not self._closed.is_set():
            try:
                reply = self._connection.read_response(disconnect_on_error=False)
            except Exception as error:  # noqa: BLE001 - whatever became of the connection, another is made
                log.debug("subscription lost, trying again: %r", error)
                if self._closed.wait(AGAIN):
                    return
                with self._lock:
                    self._hang_up()
                    self._connect()
                    if self._connection is not None:
                        self._audience.missed()
                continue
            with self._lock:
                self._audience.hear(reply)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                connection.disconnect()

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            with self._lock:
                self._say("UNSUBSCRIBE", HELLO)  # its answer wakes the thread
            self._thread.join(3)
            self._hang_up()
