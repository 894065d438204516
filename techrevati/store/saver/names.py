"""Names of one thread's checkpoints on Redis: a hash tag per thread, so threads spread over a cluster."""

import re
from dataclasses import dataclass, field

from techrevati.store.errors import BadName
from techrevati.store.keys import check_role, check_tenant

_THREAD = re.compile(r"[^{}\x00-\x1f\x7f\ud800-\udfff]{1,200}")


@dataclass(frozen=True, slots=True)
class SaverKeys:
    """The key names of one thread's checkpoints; the mirror of ``lua/_saver.lua``."""

    fleet: str
    tenant: str
    thread: str

    clock: str = field(init=False)
    """Hash: time, last number and id, first number, fencing token."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", f"saver:{{{self.fleet}:{self.tenant}:{self.thread}}}")


def check_saver(fleet: str, tenant: str) -> None:
    check_role(fleet, "fleet")
    check_tenant(tenant)


def check_thread_name(thread: str) -> str:
    """Refuse a thread id that could not be part of a key.

    Raises:
        BadName: it is empty, over 200 bytes, or has braces or control characters.
    """
    if not _THREAD.fullmatch(thread) or len(thread.encode()) > 200:
        raise BadName("thread_id", thread, "1-200 bytes without braces or control characters")
    return thread
