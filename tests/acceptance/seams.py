"""Crash points: named places in the runtime and in tools where a test has a worker die.

    Cluster.arm("after_step", 3) ──file──▶ crash_here("after_step"), the third time ──▶ SIGKILL

The file counts down, so that the worker which comes after the dead one is spared.
"""

import fcntl
import os
import signal
import time
from collections import Counter
from pathlib import Path

from tests.acceptance.diary import home, tell

_passed: Counter[str] = Counter()


def _file(seam: str) -> Path:
    return home() / f"seam-{seam}"


def armed(seam: str) -> bool:
    return _file(seam).exists()


def passed(seam: str) -> int:
    """Give how often this process has come by a crash point."""
    return _passed[seam]


def crash_here(seam: str) -> None:
    """Die at a crash point that a test has armed; whoever removes the file dies."""
    _passed[seam] += 1
    try:
        with _file(seam).open("r+") as counter:
            fcntl.flock(counter, fcntl.LOCK_EX)  # workers of two pools may come by at once
            if not (text := counter.read()):
                return  # the one before has died of it
            left = int(text) - 1
            counter.seek(0)
            counter.truncate()
            if left > 0:
                counter.write(str(left))
                return
            _file(seam).unlink()
    except FileNotFoundError:
        return
    tell(f"crash {seam} {time.time()}")
    os.kill(os.getpid(), signal.SIGKILL)
