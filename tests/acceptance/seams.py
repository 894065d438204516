"""Crash points: named places in the runtime and in tools where a test has a worker die.

    Cluster.arm("after_step", 3) ──file──▶ crash_here("after_step"), the third time ──▶ SIGKILL

The file counts down, so that the worker which comes after the dead one is spared.
"""

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
        left = int(_file(seam).read_text()) - 1
        if left > 0:
            _file(seam).write_text(str(left))
            return
        _file(seam).unlink()
    except FileNotFoundError:
        return
    tell(f"crash {seam} {time.time()}")
    os.kill(os.getpid(), signal.SIGKILL)
