"""Who waits for what, over one connection per process: many channels, one subscription socket.

    PUBLISH wake:{t}:<run> ──▶ one pub/sub connection ──▶ whoever waits on that channel

Pub/sub may lose messages, so a listener also hears ``None`` after each reconnect, and every waiter looks
again by itself from time to time.
"""

import asyncio
import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from techrevati.store.sync import connect

log = logging.getLogger(__name__)

Hear = Callable[[str | None], None]
"""Called with a message's payload, or None when messages may have been missed."""


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

    def missed(self) -> None:
        for ears in list(self._ears.values()):
            for hear in list(ears):
                hear(None)


class AsyncListener:
    """Channels for an event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._audience = Audience()
        self._redis: AsyncRedis | None = None
        self._pubsub: Any = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def listen(self, channel: str, hear: Hear) -> None:
        """Hear a channel from when this returns; `hear` is called on the loop."""
        if self._pubsub is None:
            self._redis = AsyncRedis.from_url(self._url, decode_responses=True, socket_connect_timeout=5)
            self._pubsub = self._redis.pubsub()
        if self._audience.add(channel, hear):
            with contextlib.suppress(RedisError, OSError):  # the reader subscribes anew when Redis is back
                await self._pubsub.subscribe(channel)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._read())

    async def leave(self, channel: str, hear: Hear) -> None:
        if self._audience.remove(channel, hear) and self._pubsub is not None:
            with contextlib.suppress(RedisError, OSError):
                await self._pubsub.unsubscribe(channel)

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

    async def _read(self) -> None:
        while True:
            try:
                if not self._pubsub.subscribed:
                    await self._again()
                message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=5.0)
                if message is not None and message["type"] == "message":
                    self._audience.tell(message["channel"], message["data"])
            except (RedisError, OSError) as error:
                log.debug("subscription lost, trying again: %s", error)
                await asyncio.sleep(0.2)
                await self._again()

    async def _again(self) -> None:
        channels = self._audience.channels()
        with contextlib.suppress(RedisError, OSError):
            await self._pubsub.aclose()
        assert self._redis is not None
        self._pubsub = self._redis.pubsub()
        if not channels:
            await asyncio.sleep(0.05)
            return
        with contextlib.suppress(RedisError, OSError):
            await self._pubsub.subscribe(*channels)
        self._audience.missed()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._pubsub is not None and self._redis is not None:
            with contextlib.suppress(RedisError, OSError):
                await self._pubsub.aclose()
                await self._redis.aclose()


class ThreadListener:
    """Channels for threads: one daemon thread reads, many wait."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._audience = Audience()
        self._lock = threading.RLock()
        self._redis: redis.Redis | None = None
        self._pubsub: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def waiting(self, channel: str) -> Iterator[threading.Event]:
        """Give an event that is set whenever the channel speaks, or may have."""
        event = threading.Event()

        def hear(_: str | None) -> None:
            event.set()

        with self._lock:
            self._open()
            if self._audience.add(channel, hear):
                with contextlib.suppress(RedisError, OSError):
                    self._pubsub.subscribe(channel)
        try:
            yield event
        finally:
            with self._lock:
                if self._audience.remove(channel, hear):
                    with contextlib.suppress(RedisError, OSError):
                        self._pubsub.unsubscribe(channel)

    def _open(self) -> None:
        if self._thread is None:
            self._redis = connect(self._url, socket_timeout=None)
            self._pubsub = self._redis.pubsub()
            # Subscribed from the start, so that the reader has a connection before anyone waits.
            with contextlib.suppress(RedisError, OSError):
                self._pubsub.subscribe("techrevati:hello")
            self._thread = threading.Thread(target=self._read, name="techrevati-listener", daemon=True)
            self._thread.start()

    def _read(self) -> None:
        while not self._closed:
            try:
                message = self._pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
            except (RedisError, OSError, ValueError) as error:
                if self._closed:
                    return
                log.debug("subscription lost, trying again: %s", error)
                self._again()
                continue
            if message is not None and message["type"] == "message":
                with self._lock:
                    self._audience.tell(message["channel"], message["data"])

    def _again(self) -> None:
        threading.Event().wait(0.2)
        with self._lock, contextlib.suppress(RedisError, OSError):
            self._pubsub.close()
            assert self._redis is not None
            self._pubsub = self._redis.pubsub()
            self._pubsub.subscribe("techrevati:hello", *self._audience.channels())
            self._audience.missed()

    def close(self) -> None:
        self._closed = True
        if self._thread is not None:
            with self._lock, contextlib.suppress(RedisError, OSError):
                self._pubsub.unsubscribe("techrevati:hello")  # its answer wakes the thread
            self._thread.join(3)
            with contextlib.suppress(RedisError, OSError):
                self._pubsub.close()
                assert self._redis is not None
                self._redis.close()
