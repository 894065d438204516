"""Reading a skill's files, and nothing beside them.

    "references/api.md" ──▶ plain relative path ──▶ resolved inside the root ──▶ a regular file ──▶ bytes

A skill may come from anyone: a link that points out of its directory is refused, as is a device or a pipe.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from techrevati.agent.errors import AgentError


class BadResource(AgentError):
    """A path that is not one of the skill's files."""

    code = "invalid_arguments"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"{self.path!r}: {self.cause}"


@dataclass(frozen=True, slots=True)
class FileText:
    """A file, or its beginning."""

    path: str
    content: str
    sha256: str
    """Of the whole file, also when `content` is cut."""
    size: int
    truncated: bool


def locate(root: Path, path: str, folders: tuple[str, ...]) -> Path:
    """Find a file of a skill.

    Args:
        folders: The directories of the skill that may be asked for, such as ``("references", "assets")``.

    Raises:
        BadResource: not a plain relative path below one of the folders, or it leads out of the skill.
    """
    parts = PurePosixPath(path).parts
    if not parts or "\\" in path or "\0" in path or path.startswith("/") or ".." in parts or parts[0] not in folders:
        raise BadResource(path, f"not a path of the skill; fix: use {' or '.join(f'{name}/…' for name in folders)}")
    try:
        real_root, found = root.resolve(strict=True), (root / path).resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise BadResource(path, "no such file") from error
    if not found.is_relative_to(real_root / parts[0]):
        raise BadResource(path, "leads out of the skill's directory")
    if not found.is_file():
        raise BadResource(path, "not a file")
    return found


def read_bytes(found: Path, *, limit: int) -> tuple[bytes, int, str]:
    """Read up to `limit` bytes of a located file; gives them, the file's size and its SHA-256.

    Raises:
        BadResource: it cannot be read, or is no regular file (any more).
    """
    try:
        # What `locate` resolved has no link at its end: if one is there now, somebody put it there since.
        handle = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BadResource(found.name, "not a regular file")
            digest, head, size = hashlib.sha256(), b"", 0
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                head += chunk[: max(0, limit - len(head))]
                size += len(chunk)
    except OSError as error:
        raise BadResource(found.name, f"cannot be read ({error.strerror})") from error
    return head, size, digest.hexdigest()


def read_text(root: Path, path: str, *, folders: tuple[str, ...], limit: int) -> FileText:
    """Read a text file of a skill, at most `limit` bytes of it.

    Raises:
        BadResource: not a file of the skill, or not UTF-8.
    """
    head, size, digest = read_bytes(locate(root, path, folders), limit=limit)
    try:
        # A cut may fall inside a character; only that one is dropped.
        text = head.decode("utf-8") if size <= limit else _whole_characters(head)
    except UnicodeDecodeError as error:
        raise BadResource(path, f"not UTF-8 text ({size:,} bytes)") from error
    return FileText(path, text, digest, size, size > limit)


def _whole_characters(head: bytes) -> str:
    try:
        return head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(head) - 3 and error.reason == "unexpected end of data":
            return head[: error.start].decode("utf-8")
        raise
