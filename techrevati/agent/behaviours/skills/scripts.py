"""Running a skill's script: its own process group, a bare environment, and limits.

    scripts/x.py ──▶ sh: ulimit … ; exec interpreter ──▶ output up to a cap ──▶ exit, or killed with all it started

This bounds what a script costs, not what it may touch: it runs as this process's user.  Skills from
strangers belong in a container (see the guide).
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from techrevati.agent.behaviours.skills.files import BadResource

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
_STRAGGLERS = 1.0  # s that a killed group has to let go of its pipes


@dataclass(frozen=True, slots=True)
class ScriptLimits:
    """What one script may use.  None is no limit."""

    timeout: float = 60.0
    """Wall-clock seconds."""
    output: int = 64 * 1024
    """Bytes kept of each of stdout and stderr; the rest is read and dropped."""
    cpu: int | None = 60
    """Processor seconds of one process."""
    file_size: int | None = 64 * 1024 * 1024
    """Bytes of one file it writes."""
    memory: int | None = None
    """Bytes of address space of one process; runtimes that reserve much (node, Java) fail below gigabytes."""


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """What a script said, and how it ended."""

    exit_code: int | None
    """None: it ran out of time.  Negative: the signal that ended it."""
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    timed_out: bool


class _Capture(asyncio.SubprocessProtocol):
    """Keeps the head of what a process writes, and knows when it has gone."""

    def __init__(self, limit: int) -> None:
        loop = asyncio.get_running_loop()
        self._limit = limit
        self.kept = {1: bytearray(), 2: bytearray()}
        self.truncated = {1: False, 2: False}
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        room = self._limit - len(self.kept[fd])
        self.kept[fd] += data[:room]
        self.truncated[fd] = self.truncated[fd] or len(data) > room

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def text(self, fd: int) -> str:
        return bytes(self.kept[fd]).decode("utf-8", "replace")


def interpreter(script: Path) -> tuple[str, ...]:
    """Say what runs a script: by its suffix, or itself if it may be executed.

    Raises:
        BadResource: neither.
    """
    match script.suffix:
        case ".py":
            return (sys.executable, "-E", "-s", str(script))  # not -I: scripts import what lies beside them
        case ".sh":
            return ("/bin/sh", str(script))
    if os.access(script, os.X_OK):
        return (str(script),)
    raise BadResource(script.name, "cannot be run; fix: a .py or .sh file, or chmod +x and a '#!' line")


def _limited(command: Sequence[str], limits: ScriptLimits) -> list[str]:
    # ulimit in a shell that execs: a preexec function is not safe in a process that has threads.
    wanted = (("-t", limits.cpu, 1), ("-f", limits.file_size, 512), ("-v", limits.memory, 1024))
    bounds = [f"ulimit {flag} {max(1, value // unit)}" for flag, value, unit in wanted if value is not None]
    return ["/bin/sh", "-c", " && ".join([*bounds, 'exec "$@"']), "sh", *command]


async def run_script(
    script: Path,
    arguments: Sequence[str] = (),
    *,
    directory: Path,
    limits: ScriptLimits | None = None,
    environment: Mapping[str, str] | None = None,
) -> ScriptResult:
    """Run a located script and wait for it; whatever it started is killed with it.

    Args:
        directory: Where it runs.
        environment: Variables on top of PATH, HOME, locale and TMPDIR; nothing else of ours is handed on.

    Raises:
        BadResource: it cannot be run.
    """
    limits = limits or ScriptLimits()
    if any("\0" in argument for argument in arguments):
        raise BadResource(script.name, "an argument contains a NUL character")
    command = _limited([*interpreter(script), *arguments], limits)
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    capture = _Capture(limits.output)
    # A task that is not cancelled: asyncio's own way out of a half-started process kills the shell only, and may
    # wait for ever for pipes that were never connected.
    starting = asyncio.ensure_future(
        asyncio.get_running_loop().subprocess_exec(
            lambda: capture,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            cwd=directory,
            env=inherited | dict(environment or {}),
            start_new_session=True,
        )
    )
    timed_out = False
    try:
        transport, _ = await asyncio.shield(starting)
        async with asyncio.timeout(limits.timeout):
            await asyncio.shield(capture.exited)
    except TimeoutError:
        timed_out = True
    finally:
        await asyncio.wait([starting])
        if starting.exception() is None:
            await _end(starting.result()[0], capture)
    return ScriptResult(
        None if timed_out else transport.get_returncode(),
        capture.text(1),
        capture.text(2),
        capture.truncated[1],
        capture.truncated[2],
        timed_out,
    )


async def _end(transport: asyncio.SubprocessTransport, capture: _Capture) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(transport.get_pid(), signal.SIGKILL)
    await _until(capture.closed)
    transport.close()
    await _until(capture.closed)  # the pipes close in the loop's next rounds


async def _until(closed: asyncio.Future[None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STRAGGLERS):
            await asyncio.shield(closed)
