"""Names on Redis: what lives where, and in which partition.

    (tenant, thread) ──crc16──▶ partition p ──▶ hash tag {fleet:p} ──▶ every key of that thread

All keys of one partition share a hash tag, so one script may move a whole thread, its runs and its
children.  Scripts are given the partition's clock key and build the other names with the functions
of ``lua/_unit.lua``; `PartitionKeys` is the same table for Python, and a test holds the two together.
"""

import binascii
import os
import re
import time
from dataclasses import dataclass
from typing import NewType

from techrevati.store.errors import BadName

RunId = NewType("RunId", str)

_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_TENANT = re.compile(r"[^\s{}:\x00-\x1f]{1,200}")
_THREAD = re.compile(r"[^{}\x00-\x1f\x7f]{1,200}")
_GENERATED = re.compile(r"[0-9a-f]{32}\.(\d{1,5})")
CHILD_PREFIX = "sub-agent-"
CALL_PREFIX = "tool:"
"""Of the agent that carries out calls of a tool in a pool of its own; no author's agent can be called so."""


def check_role(name: str, what: str = "role") -> str:
    """Refuse a role, agent or fleet name that could not be part of a key or a queue name."""
    if not _ROLE.fullmatch(name):
        raise BadName(what, name, "1-100 of A-Z a-z 0-9 _ . - beginning with a letter or digit")
    return name


def check_tenant(name: str) -> str:
    if not _TENANT.fullmatch(name) or len(name.encode()) > 200:
        raise BadName("tenant", name, "1-200 bytes without space, colon, braces or control characters")
    return name


def check_thread(name: str) -> str:
    """Refuse a thread id from outside that is malformed or claims to be a sub-agent's."""
    if not _THREAD.fullmatch(name) or len(name.encode()) > 200:
        raise BadName("thread_id", name, "1-200 bytes without braces or control characters")
    if name.startswith(CHILD_PREFIX):
        raise BadName("thread_id", name, f"not beginning with {CHILD_PREFIX!r}: those are sub-agents' threads")
    return name


def new_id(partition: int, *, now_ms: int | None = None, entropy: bytes | None = None) -> str:
    """Make a time-ordered id that carries its partition: 32 hex digits of UUIDv7, a dot, the number.

    Source: RFC 9562, section 5.7.
    """
    ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    random = int.from_bytes(entropy if entropy is not None else os.urandom(10), "big")
    value = (ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (random >> 62 & 0xFFF) << 64 | 0b10 << 62
    value |= random & (1 << 62) - 1
    return f"{value:032x}.{partition}"


def partition_of_id(generated: str) -> int | None:
    """Give the partition a generated id carries, or None for any other string."""
    match = _GENERATED.fullmatch(generated)
    return int(match[1]) if match else None


def partition_of(tenant: str, name: str, partitions: int) -> int:
    """Give the partition of a thread id (or of an idempotency key standing in for one).

    Ids we generated say it themselves; a child's is its parent's; all else is hashed.
    """
    own = partition_of_id(name.removeprefix(CHILD_PREFIX))
    if own is not None and own < partitions:
        return own
    return binascii.crc_hqx(f"{tenant}\x00{name}".encode(), 0) % partitions


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """The key names of one partition; the mirror of ``lua/_unit.lua``."""

    fleet: str
    partition: int

    @property
    def tag(self) -> str:
        return f"{{{self.fleet}:{self.partition}}}"

    @property
    def clock(self) -> str:
        """Hash: time never falls (`us`), minimal protocol (`min`), commits refused (`fenced`), threads deleted
        (`drops`); every KEYS[1]."""
        return f"clock:{self.tag}"

    @property
    def due(self) -> str:
        return f"due:{self.tag}"

    @property
    def routes(self) -> str:
        return f"routes:{self.tag}"

    @property
    def deadlines(self) -> str:
        return f"deadlines:{self.tag}"

    @property
    def runs(self) -> str:
        """Sorted set: every run the partition still knows, by creation time."""
        return f"runs:{self.tag}"

    @property
    def ended(self) -> str:
        """Sorted set: terminal runs, by the time they are forgotten."""
        return f"ended:{self.tag}"

    @property
    def drops(self) -> str:
        """Sorted set: numbers of deleted threads that have runs left to forget, the oldest first."""
        return f"drops:{self.tag}"

    @property
    def roles(self) -> str:
        """Set: roles this partition has seen."""
        return f"roles:{self.tag}"

    @property
    def sweeper(self) -> str:
        """Hash: which coordinator sweeps this partition."""
        return f"sweeper:{self.tag}"

    @property
    def weights(self) -> str:
        """Hash: tenant -> weight of its share (1 if absent)."""
        return f"weights:{self.tag}"

    def tickets(self, role: str) -> str:
        """Hash: ticket account of a role: out, ready, window, v, since, patience, template, cap."""
        return f"tickets:{self.tag}:{role}"

    def ready(self, role: str, tenant: str | None = None) -> str:
        return f"ready:{self.tag}:{role}" if tenant is None else f"ready:{self.tag}:{role}:{tenant}"

    def last(self, role: str) -> str:
        """Sorted set: ready runs on their last attempt."""
        return f"last:{self.tag}:{role}"

    def fair(self, role: str) -> str:
        """Sorted set: finish tags of tenants that have nothing ready now."""
        return f"fair:{self.tag}:{role}"

    def capped(self, role: str) -> str:
        """Sorted set: tenants with ready runs that are at their cap of running turns."""
        return f"capped:{self.tag}:{role}"

    def running(self, role: str) -> str:
        """Hash: tenant -> turns running now."""
        return f"running:{self.tag}:{role}"

    def pool(self, role: str) -> str:
        """Hash: live worker -> "places:expires_us"."""
        return f"pool:{self.tag}:{role}"

    def run(self, run_id: str) -> str:
        return f"run:{self.tag}:{run_id}"

    def inbox(self, run_id: str) -> str:
        return f"inbox:{self.tag}:{run_id}"

    def journal(self, run_id: str) -> str:
        return f"journal:{self.tag}:{run_id}"

    def calls(self, run_id: str) -> str:
        """Hash: suspended calls of a run and what was decided."""
        return f"calls:{self.tag}:{run_id}"

    def decided(self, run_id: str) -> str:
        """Hash: what came from outside and counts once: calls decided, entries put."""
        return f"decided:{self.tag}:{run_id}"

    def kids(self, run_id: str) -> str:
        return f"kids:{self.tag}:{run_id}"

    def asking(self, run_id: str) -> str:
        """Hash: sub-agents, however far below, that have asked something -> the way down to each."""
        return f"asking:{self.tag}:{run_id}"

    def events(self, run_id: str) -> str:
        return f"events:{self.tag}:{run_id}"

    def live(self, run_id: str) -> str:
        return f"live:{self.tag}:{run_id}"

    def claim(self, claim_id: str) -> str:
        return f"claim:{self.tag}:{claim_id}"

    def idem(self, digest: str) -> str:
        return f"idem:{self.tag}:{digest}"

    def thread(self, tenant: str, thread: str) -> str:
        return f"thread:{self.tag}:{tenant}:{thread}"

    def messages(self, tenant: str, thread: str) -> str:
        return f"msgs:{self.tag}:{tenant}:{thread}"

    def checkpoints(self, tenant: str, thread: str) -> str:
        return f"ckpt:{self.tag}:{tenant}:{thread}"

    def runsof(self, tenant: str, thread: str) -> str:
        """Sorted set: every run of a thread that is still known, by creation time."""
        return f"runsof:{self.tag}:{tenant}:{thread}"

    def drop(self, number: int | str) -> str:
        """Sorted set: what was the `runsof` of a deleted thread."""
        return f"drop:{self.tag}:{number}"

    def line(self, tenant: str, thread: str) -> str:
        return f"line:{self.tag}:{tenant}:{thread}"

    def wake(self, run_id: str) -> str:
        """Channel: something durable or live happened to this run."""
        return f"wake:{self.tag}:{run_id}"

    @property
    def stop(self) -> str:
        """Channel: a leased run was cancelled or revoked."""
        return f"stop:{self.tag}"


def meta_key(fleet: str) -> str:
    """Hash: partitions, protocol, the server's run id."""
    return f"meta:{{{fleet}}}"


def roles_key(fleet: str) -> str:
    """Hash: agent -> JSON of what was declared about it."""
    return f"roles:{{{fleet}}}"


def queue_name(fleet: str, role: str) -> str:
    """The Celery queue, and so the broker's list, of one role."""
    return f"{fleet}.role.{role}"


def coordinator_queue(fleet: str) -> str:
    """The list whose entries wake a coordinator: partition numbers with a handoff to place."""
    return f"{fleet}.coordinator"
