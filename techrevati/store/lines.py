"""Connections for code that may block: one write, as many replies, no ceremony between.

    exchange(packed commands) ──▶ an idle connection, or a new one ──▶ replies ──▶ idle again

redis-py's client around a command costs four times what the command does, and its reading of a reply as much as
Redis takes to make one; what is sent here is packed already, and what comes is read by hiredis at once.  redis-py
makes the connections: URLs, TLS, passwords and the handshake are its own.
"""

import os
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import ConnectionPool
from redis import exceptions as theirs

from techrevati.store.wire import moved

_NOTHING = object()
_READ = 65_536
_BIG = 32_768
"""Bytes from which it pays not to copy pieces into one."""
_PIECES = 64


class Line:
    """One connection, and how long (s) it waits for the server, as it was asked for.

    After any error but a reply's it is of no use.
    """

    def __init__(self, connection: Any, within: float | None) -> None:
        self._connection, self._socket, self.within = connection, connection._sock, within
        self._reader: Any = hiredis.Reader(
            protocolError=theirs.InvalidResponse,
            replyError=connection._parser.parse_error,
            encoding="utf-8",
            notEnoughData=_NOTHING,
        )
        self._buffer = bytearray(_READ)

    def wait_no_longer_than(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)

    def exchange(self, data: Sequence[bytes], binary: Sequence[bool]) -> list[Any]:
        """Send packed commands; see `Lines.exchange`."""
        try:
            self._send(data)
            return [self._reply(not as_stored) for as_stored in binary]
        except TimeoutError as error:
            raise theirs.TimeoutError("no reply within the timeout") from error
        except OSError as error:
            raise theirs.ConnectionError(str(error) or "connection lost") from error

    def _send(self, data: Sequence[bytes]) -> None:
        if len(data) == 1:
            self._socket.sendall(data[0])
            return
        size = sum(map(len, data))
        if size < _BIG or len(data) > _PIECES or isinstance(self._socket, ssl.SSLSocket):  # TLS copies all the same
            self._socket.sendall(b"".join(data))
            return
        sent = self._socket.sendmsg(data)
        if sent < size:
            self._socket.sendall(memoryview(b"".join(data))[sent:])

    def _reply(self, decode: bool) -> Any:
        reply = self._reader.gets(decode)
        while reply is _NOTHING:
            size = self._socket.recv_into(self._buffer)
            if not size:
                raise theirs.ConnectionError("the server closed the connection")
            self._reader.feed(self._buffer, 0, size)
            reply = self._reader.gets(decode)
        if isinstance(reply, theirs.ConnectionError):
            raise reply  # it loads its data still, say
        if isinstance(reply, theirs.ResponseError) and moved(reply):  # and so has every connection that is idle
            raise theirs.ConnectionError(str(reply)) from reply
        return reply

    def close(self) -> None:
        self._connection.disconnect()


class Lines:
    """Connections of one process, made as threads need them and kept for the next call.  Safe for threads."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool, self._idle, self._process = pool, deque[Line](), os.getpid()

    def exchange(self, data: Sequence[bytes], binary: Sequence[bool], within: float | None = None) -> list[Any]:
        """Send packed commands, in pieces; give a reply for each entry of `binary` (bytes as stored, or text).

        An error that answers one command stands in its place.  A connection that was idle and turns out to be
        closed is replaced at once: whatever is said here may be said twice.  `within` (s): a server that says
        nothing for so long is a `TimeoutError`; None leaves it to the pool's settings.
        """
        if os.getpid() != self._process:  # a fork: these sockets are the parent's
            self._idle, self._process = deque(), os.getpid()
        try:
            idle = self._idle.pop()
        except IndexError:
            return self._over(self._connect(within), data, binary)
        try:
            if idle.within != within:
                idle.wait_no_longer_than(self._patience(within))
                idle.within = within
            return self._over(idle, data, binary)
        except theirs.ConnectionError:
            self.close()  # the others were closed with it
            return self._over(self._connect(within), data, binary)

    def close(self) -> None:
        """Hang up on all that are idle."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def _patience(self, within: float | None) -> float | None:
        usual: float | None = self._pool.connection_kwargs.get("socket_timeout")
        return usual if within is None else within if usual is None else min(usual, within)

    def _connect(self, within: float | None) -> Line:
        settings = self._pool.connection_kwargs
        if within is not None:  # a server that hangs accepts, and never answers the first word
            bound, dial = self._patience(within), settings.get("socket_connect_timeout")
            settings = {
                **settings,
                "socket_timeout": bound,
                "socket_connect_timeout": bound if dial is None or bound is None else min(dial, bound),
            }
        connection: Any = self._pool.connection_class(**settings)
        try:
            connection.connect()
        except theirs.ConnectionError as error:
            if isinstance(error.__cause__, theirs.AuthenticationError):  # wrapped, so that it looks passing
                raise error.__cause__ from None
            raise
        return Line(connection, within)

    def _over(self, line: Line, data: Sequence[bytes], binary: Sequence[bool]) -> list[Any]:
        try:
            replies = line.exchange(data, binary)
        except BaseException:
            line.close()
            raise
        self._idle.append(line)
        return replies
