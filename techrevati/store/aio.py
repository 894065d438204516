"""The store for an event loop: many coroutines, one connection, few packets.

    run(call) ─▶ queue ─▶ batch of what gathered ─▶ one write ─▶ replies in order ─▶ futures

While a batch is under way new calls gather into the next, so the busier the loop, the fewer system calls
a turn costs.  One loop owns a store; other threads have their own.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redis import exceptions as theirs
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from techrevati.store import riding
from techrevati.store.calls import Arg, Call
from techrevati.store.errors import StoreUnreachable
from techrevati.store.sentinel import async_master_pool, is_sentinel, parse
from techrevati.store.wire import (
    RETRIABLE,
    Ring,
    answer_of,
    moved,
    pack,
    pack_command,
    replies_to,
    rung,
    safe_url,
    translate,
)

T = TypeVar("T")

BATCH = 128
BUSY, GATHER = 4, 0.001
"""After a batch of so many calls, let the next gather for so long (s): fewer packets, and fewer AOF writes."""


def async_pool(url: str, **options: Any) -> ConnectionPool:
    """Make connections for an event loop to what a URL names; nothing is sent before the first is made."""
    settings: dict[str, Any] = {
        "decode_responses": True,
        "protocol": 2,
        "socket_connect_timeout": 5,
        "retry": Retry(NoBackoff(), 0),
        **options,
    }
    return async_master_pool(url, **settings) if is_sentinel(url) else ConnectionPool.from_url(url, **settings)


class _Job:
    """One call or command under way."""

    __slots__ = ("binary", "call", "command", "deadline", "future", "then", "whole")

    def __init__(
        self,
        call: Call[Any] | None,
        command: Sequence[Arg],
        future: "asyncio.Future[Any]",
        deadline: float,
        then: Sequence[Arg] = (),
        binary: bool = False,
    ) -> None:
        self.call, self.command, self.future, self.deadline, self.then = call, command, future, deadline, then
        self.binary = binary
        self.whole = False
        """Whether to send the script's source: the server does not know it."""


_Sent = tuple[_Job, _Job | None]
"""A job, and the claim that rides on it."""


def _answer(job: _Job, reply: Any) -> None:
    if not job.future.done():  # a cancelled caller waits no more
        job.future.set_result(reply)


async def _read(connection: AbstractConnection, binary: bool) -> Any:
    """Give a reply, or the error in its place: others come behind it."""
    try:
        return await connection.read_response(disable_decoding=binary)
    except theirs.ResponseError as error:
        return error


class AsyncStore:
    """Runs calls, batched, in the order they were made.

    A call whose reply was lost is sent again, with the same ids, until `patience` seconds have passed; then its
    caller gets `StoreUnreachable`.  A cancelled caller does not stop a call that is on its way.
    """

    def __init__(
        self,
        url: str,
        *,
        patience: float = 10.0,
        timeout: float = 10.0,
        ring: Ring | None = None,
        now_us: Callable[[], int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if is_sentinel(url):
            parse(url)  # what cannot be read is refused here
        self.url, self.ring = url, ring
        self._patience, self._timeout = patience, timeout
        self._now_us, self._monotonic = now_us, monotonic
        self._queue: deque[_Job] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._connection: AbstractConnection | None = None
        self._pool: ConnectionPool | None = None
        self.batches = self.calls = self.rides = self.failures = 0
        """Round trips, calls in them, claims that rode on commits, round trips that Redis did not answer."""

    async def run(self, call: Call[T], *, patience: float | None = None) -> T:
        """Run one call; `patience` (s) for this one.

        Raises:
            StoreUnreachable: Redis did not answer within the patience.
            StoreDenied: it refused the credentials.
        """
        reply = await self._submit(call, patience=patience)
        if reply[1]:
            rung(call, reply, self.ring)
        return call.parse(reply)

    async def run_then(self, call: Call[T], command: Sequence[Arg]) -> tuple[T, Any]:
        """Run one call and a command behind it on the same connection: what WAIT and WAITAOF need.

        If the connection breaks between the two, both are sent again.  Calls behind them wait, too.
        """
        reply, after = await self._submit(call, then=command)
        return call.parse(reply), after

    async def command(self, *args: Arg, binary: bool = False) -> Any:
        """Run one plain, idempotent command; `binary`: its reply is bytes as they are stored."""
        return await self._submit(None, args, binary=binary)

    async def commands(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """Run plain, idempotent commands together."""
        return list(await asyncio.gather(*(self._submit(None, args) for args in commands)))

    async def close(self) -> None:
        """Finish what is queued, then hang up."""
        if self._flusher is not None:
            await self._flusher
        await self._hang_up()
        if self._pool is not None:
            await self._pool.disconnect()

    def _submit(
        self,
        call: Call[Any] | None,
        command: Sequence[Arg] = (),
        then: Sequence[Arg] = (),
        *,
        patience: float | None = None,
        binary: bool = False,
    ) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        limit = self._patience if patience is None else patience
        self._queue.append(_Job(call, command, future, self._monotonic() + limit, then, binary))
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        return future

    async def _flush(self) -> None:
        wait = 0.02
        batch: list[_Job] = []
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                try:
                    sent, batch = self._paired(batch)
                    await self._send(sent)
                    await self._receive(sent)
                    wait = 0.02
                    if len(batch) >= BUSY and len(self._queue) < BATCH // 4:
                        await asyncio.sleep(GATHER)
                except (*RETRIABLE, OSError) as error:
                    await self._hang_up()
                    if isinstance(error, theirs.AuthenticationError):  # a kind of ConnectionError to redis-py
                        self._fail(batch, error)
                        continue
                    self.failures += 1
                    self._queue.extendleft(reversed([job for job in batch if not job.future.done()]))
                    self._give_up(error)
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, 1.0)
                except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
                    await self._hang_up()
                    self._fail(batch, error)
        except BaseException as error:
            self._fail([*batch, *self._queue], RuntimeError(f"the store's loop ended: {error!r}"))
            self._queue.clear()
            raise
        finally:
            self._flusher = None

    def _paired(self, batch: list[_Job]) -> tuple[list[_Sent], list[_Job]]:
        """Give what to send and the jobs in it; a crowd of claims stays in part for the next batch."""
        asked = [None if job.then else job.call for job in batch]
        met = riding.pairs(asked)
        kept = riding.lonely(asked, met)
        self._queue.extendleft(reversed([batch[index] for index in kept]))
        aside = {*met.values(), *kept}
        sent = [
            (job, batch[met[index]] if index in met else None) for index, job in enumerate(batch) if index not in aside
        ]
        left = set(kept)
        return sent, [job for index, job in enumerate(batch) if index not in left] if kept else batch

    async def _send(self, sent: list[_Sent]) -> None:
        connection = self._connection
        if connection is None:
            connection = await self._connect()
        now = "" if self._now_us is None else str(self._now_us())
        data: list[bytes] = []
        for job, rider in sent:
            if job.call is None:
                data.append(pack_command(job.command))
            elif rider is None:
                data.append(pack(job.call, now, whole=job.whole))
            else:
                assert rider.call is not None
                self.rides += 1
                data.append(pack(riding.together(job.call, rider.call), now, whole=job.whole))
            if job.then:
                data.append(pack_command(job.then))
        self.batches += 1
        self.calls += len(sent)
        async with asyncio.timeout(self._timeout):
            await connection.send_packed_command(b"".join(data), check_health=False)

    async def _receive(self, sent: list[_Sent]) -> None:
        connection = self._connection
        assert connection is not None
        async with asyncio.timeout(self._timeout):
            for job, rider in sent:
                try:
                    reply = await self._reply(connection, job)
                except theirs.NoScriptError:  # flushed or new server: this one again, with its source
                    job.whole = True
                    self._queue.extend((job,) if rider is None else (job, rider))
                    continue
                except theirs.ResponseError as error:
                    if moved(error):
                        raise theirs.ConnectionError(str(error)) from error
                    self._fail([job], error)
                    if rider is not None:
                        self._queue.append(rider)
                    continue
                if rider is not None:
                    reply, claimed = riding.answers(reply)
                    if claimed is None:  # the commit was refused, and nothing claimed: the claim goes alone
                        self._queue.append(rider)
                    else:
                        _answer(rider, claimed)
                _answer(job, reply)

    @staticmethod
    async def _reply(connection: AbstractConnection, job: _Job) -> Any:
        if job.call is None or not (job.then or job.call.first):
            binary = job.binary if job.call is None else job.call.binary
            return await connection.read_response(disable_decoding=binary)
        replies = [await _read(connection, binary) for binary in replies_to(job.call)]
        after = await _read(connection, False) if job.then else None
        answer = answer_of(job.call, replies)
        for reply in (answer, after):
            if isinstance(reply, Exception):
                raise reply
        return (answer, after) if job.then else answer

    async def _connect(self) -> AbstractConnection:
        if self._pool is None:
            # No timeout per reply: there is one per batch, in `_receive`.
            self._pool = async_pool(self.url, socket_timeout=None)
        connection: AbstractConnection = self._pool.make_connection()
        try:
            await connection.connect()
        except theirs.ConnectionError as error:
            if isinstance(error.__cause__, theirs.AuthenticationError):  # wrapped, so that it looks passing
                raise error.__cause__ from None
            raise
        self._connection = connection
        return connection

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    def _fail(self, jobs: Sequence[_Job], error: Exception) -> None:
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(translate(error, self.url, job.call.script if job.call else "command"))

    def _give_up(self, error: Exception) -> None:
        now, kept = self._monotonic(), deque[_Job]()
        for job in self._queue:
            if job.future.done():
                continue
            if job.deadline <= now:
                job.future.set_exception(StoreUnreachable(safe_url(self.url), str(error) or type(error).__name__))
            else:
                kept.append(job)
        self._queue = kept
