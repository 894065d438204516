"""A file descriptor that wakes another thread's poller, once for any number of rings."""

import os
from contextlib import suppress


class Doorbell:
    """One reader, any number of ringers.

    The reader calls `clear` *before* it looks at what it was woken for; so a ring is never lost,
    and rings between two looks cost one wake-up.
    """

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)
        self._rung = False

    def fileno(self) -> int:
        return self._read

    def ring(self) -> None:
        if not self._rung:
            self._rung = True
            # Closed: the reader is gone.  Full: it has been rung already.
            with suppress(OSError):
                os.write(self._write, b"\x01\0\0\0\0\0\0\0")

    def clear(self) -> None:
        with suppress(OSError):
            os.read(self._read, 64)
        self._rung = False

    def close(self) -> None:
        for fd in {self._read, self._write}:
            with suppress(OSError):
                os.close(fd)
