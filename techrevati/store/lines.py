"""Connections for code that may block: one write, as many replies, no ceremony between.

    exchange(packed commands) ──▶ an idle connection, or a new one ──▶ replies ──▶ idle again

redis-py's client around a command costs four times what the command does; what is sent here is packed already.
"""

import os
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis import ConnectionPool
from redis import exceptions as theirs
from redis.connection import AbstractConnection

from techrevati.store.wire import moved


class Lines:
    """Connections of one process, made as threads need them and kept for the next call.  Safe for threads."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool, self._idle, self._process = pool, deque[AbstractConnection](), os.getpid()

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
            return self._over(self._connect(), data, binary)
        try:
            return self._over(idle, data, binary)
        except theirs.ConnectionError:
            self.close()  # the others were closed with it
            return self._over(self._connect(), data, binary)

    def close(self) -> None:
        """Hang up on all that are idle."""
        while self._idle:
            try:
                self._idle.pop().disconnect()
            except IndexError:
                return

    def _connect(self) -> AbstractConnection:
        connection: AbstractConnection = self._pool.connection_class(**self._pool.connection_kwargs)
        try:
            connection.connect()
        except theirs.ConnectionError as error:
            if isinstance(error.__cause__, theirs.AuthenticationError):  # wrapped, so that it looks passing
                raise error.__cause__ from None
            raise
        return connection

    def _over(self, connection: AbstractConnection, data: bytes, binary: Sequence[bool]) -> list[Any]:
        try:
            connection.send_packed_command([data], check_health=False)
            replies = [_reply(connection, as_stored) for as_stored in binary]
        except BaseException:
            connection.disconnect()
            raise
        self._idle.append(connection)
        return replies


def _reply(connection: AbstractConnection, as_stored: bool) -> Any:
    try:
        return connection.read_response(disable_decoding=as_stored)
    except theirs.ResponseError as error:
        if moved(error):  # and so has every connection that is idle
            raise theirs.ConnectionError(str(error)) from error
        return error
