"""Connections for code that may block: one write, as many replies, no ceremony between.

    exchange(packed commands) ──▶ an idle connection, or a new one ──▶ replies ──▶ idle again

redis-py's client around a command costs four times what the command does, and its reading of a reply as much as
Redis takes to make one; what is sent here is packed already, and what comes is read by hiredis at once.  redis-py
makes the connections: URLs, TLS, passwords and the handshake are its own.
"""

import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import ConnectionPool
from redis import exceptions as theirs

_NOTHING = object()
_READ = 65_536


class Line:
    """One connection.  After any error but a reply's it is of no use."""

    def __init__(self, pool: ConnectionPool) -> None:
        connection: Any = pool.connection_class(**pool.connection_kwargs)
        try:
            connection.connect()
        except theirs.ConnectionError as error:
            if isinstance(error.__cause__, theirs.AuthenticationError):  # wrapped, so that it looks passing
                raise error.__cause__ from None
            raise
        self._connection, self._socket = connection, connection._sock
        self._reader: Any = hiredis.Reader(
            protocolError=theirs.InvalidResponse,
            replyError=connection._parser.parse_error,
            encoding="utf-8",
            notEnoughData=_NOTHING,
        )
        self._buffer = bytearray(_READ)

    def exchange(self, data: bytes, binary: Sequence[bool]) -> list[Any]:
        """Send packed commands; see `Lines.exchange`."""
        try:
            self._socket.sendall(data)
            return [self._reply(not as_stored) for as_stored in binary]
        except TimeoutError as error:
            raise theirs.TimeoutError("no reply within the timeout") from error
        except OSError as error:
            raise theirs.ConnectionError(str(error) or "connection lost") from error

    def _reply(self, decode: bool) -> Any:
        reply = self._reader.gets(decode)
        while reply is _NOTHING:
            size = self._socket.recv_into(self._buffer)
            if not size:
                raise theirs.ConnectionError("the server closed the connection")
            self._reader.feed(self._buffer, 0, size)
            reply = self._reader.gets(decode)
        if isinstance(reply, theirs.ConnectionError | theirs.ReadOnlyError):
            raise reply  # loading, or a demoted primary: connect anew
        return reply

    def close(self) -> None:
        self._connection.disconnect()


class Lines:
    """Connections of one process, made as threads need them and kept for the next call.  Safe for threads."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool, self._idle, self._process = pool, deque[Line](), os.getpid()

    def exchange(self, data: bytes, binary: Sequence[bool]) -> list[Any]:
        """Send packed commands; give a reply for each entry of `binary` (bytes as stored, or text).

        An error that answers one command stands in its place.  A connection that was idle and turns out to be
        closed is replaced at once: whatever is said here may be said twice.
        """
        if os.getpid() != self._process:  # a fork: these sockets are the parent's
            self._idle, self._process = deque(), os.getpid()
        try:
            idle = self._idle.pop()
        except IndexError:
            return self._over(Line(self._pool), data, binary)
        try:
            return self._over(idle, data, binary)
        except theirs.ConnectionError:
            self.close()  # the others were closed with it
            return self._over(Line(self._pool), data, binary)

    def close(self) -> None:
        """Hang up on all that are idle."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def _over(self, line: Line, data: bytes, binary: Sequence[bool]) -> list[Any]:
        try:
            replies = line.exchange(data, binary)
        except BaseException:
            line.close()
            raise
        self._idle.append(line)
        return replies
