"""Connections for code that may block: one write, as many replies, no ceremony between.

    exchange(packed commands) ──▶ an idle connection, or a new one ──▶ replies ──▶ idle again

redis-py's client around a command costs four times what the command does; what is sent here is packed already.
"""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import ConnectionPool
from redis import exceptions as theirs
from redis.connection import AbstractConnection

from techrevati.store.wire import moved


class Lines:
    """Connections of one process, made as threads need them and kept for the next call.  Safe for threads."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool, self._idle, self._process = pool, deque[_Line](), os.getpid()

    def exchange(self, data: bytes, binary: Sequence[bool], within: float | None = None) -> list[Any]:
        """Send packed commands; give a reply for each entry of `binary` (bytes as stored, or text).

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
                self._idle.pop().connection.disconnect()
            except IndexError:
                return

    def _patience(self, within: float | None) -> float | None:
        usual: float | None = self._pool.connection_kwargs.get("socket_timeout")
        return usual if within is None else within if usual is None else min(usual, within)

    def _connect(self, within: float | None) -> "_Line":
        settings = self._pool.connection_kwargs
        if within is not None:  # a server that hangs accepts, and never answers the first word
            bound, dial = self._patience(within), settings.get("socket_connect_timeout")
            settings = {
                **settings,
                "socket_timeout": bound,
                "socket_connect_timeout": bound if dial is None or bound is None else min(dial, bound),
            }
        connection: AbstractConnection = self._pool.connection_class(**settings)
        try:
            connection.connect()
        except theirs.ConnectionError as error:
            if isinstance(error.__cause__, theirs.AuthenticationError):  # wrapped, so that it looks passing
                raise error.__cause__ from None
            raise
        return _Line(connection, within)

    def _over(self, line: "_Line", data: bytes, binary: Sequence[bool]) -> list[Any]:
        connection = line.connection
        try:
            connection.send_packed_command([data], check_health=False)
            replies = [_reply(connection, as_stored) for as_stored in binary]
        except BaseException:
            connection.disconnect()
            raise
        self._idle.append(line)
        return replies


@dataclass(slots=True)
class _Line:
    """A connection, and how long (s) it waits for the server, as it was asked for."""

    connection: AbstractConnection
    within: float | None

    def wait_no_longer_than(self, seconds: float | None) -> None:
        socket = self.connection._sock
        if socket is not None:
            socket.settimeout(seconds)


def _reply(connection: AbstractConnection, as_stored: bool) -> Any:
    try:
        return connection.read_response(disable_decoding=as_stored)
    except theirs.ResponseError as error:
        if moved(error):  # and so has every connection that is idle
            raise theirs.ConnectionError(str(error)) from error
        return error
