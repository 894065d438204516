"""What is said about whole threads: fork one, delete one.

    fork(keys, ForkSpec(...)) ──▶ Call ──▶ Started        delete(keys, tenant, thread) ──▶ Call ──▶ Deleted

The rest is as in `calls`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from techrevati.store.calls import Arg, Call, refuse
from techrevati.store.errors import ThreadBusy, ThreadInUse, ThreadNotFound, VersionGone
from techrevati.store.keys import PartitionKeys
from techrevati.store.records import Deleted, Started

DELETE_LIMIT = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkSpec:
    """All that a fork says; see ``lua/run_fork.lua``.  The new thread is in the source's partition."""

    run_id: str
    tenant: str
    source: str
    version: int
    commit: str
    state: str
    thread_id: str
    role: str
    agent: str
    payload_digest: str
    turn: int = 1
    idem: str = ""
    idem_key: str = ""
    begin: str = ""
    deadline: str = ""
    priority: int = 0
    max_attempts: int = 3
    fields: Mapping[str, str]


def fork(keys: PartitionKeys, spec: ForkSpec) -> Call[Started]:
    """Make a thread from a version of another, with a run of its own.

    Raises, when it is run:
        ThreadNotFound: the source is not there.
        VersionGone: the version is not kept, or is another one than was read.
    """

    def parse(reply: Sequence[Any]) -> Started:
        match int(reply[0]):
            case -3:
                raise ThreadBusy(spec.thread_id, str(reply[2]))
            case -4:
                raise ThreadNotFound(spec.source, spec.tenant)
            case -12:
                raise VersionGone(spec.source, spec.version, None, int(reply[2]))
            case code if code < 0:
                refuse("run_fork", reply, key=spec.idem_key, run_id=spec.run_id)
        return Started(reply[2], reply[3], reply[0] == 1)

    args: list[Arg] = [
        *(spec.run_id, spec.tenant, spec.source, spec.version, spec.commit, spec.state, spec.thread_id),
        *(spec.role, spec.agent, spec.turn, spec.idem, spec.payload_digest, spec.begin, spec.deadline),
        *(spec.priority, spec.max_attempts),
    ]
    for name, value in spec.fields.items():
        args += (name, value)
    return Call("run_fork", keys, args, parse)


def delete(
    keys: PartitionKeys, tenant: str, thread_id: str, *, force: bool = False, limit: int = DELETE_LIMIT
) -> Call[Deleted]:
    """Delete a thread with all its runs; said again, it goes on where the last call left off.

    Raises, when it is run:
        ThreadInUse: a run is active on it, and `force` was not given.
    """

    def parse(reply: Sequence[Any]) -> Deleted:
        if reply[0] == -3:
            raise ThreadInUse(thread_id, str(reply[2]))
        if reply[0] < 0:
            refuse("thread_delete", reply)
        return Deleted(reply[0] == 1, int(reply[2]), int(reply[3]) > 0)

    return Call("thread_delete", keys, [tenant, thread_id, "1" if force else "0", limit], parse)


def forget(keys: PartitionKeys) -> Call[Deleted]:
    """Go on forgetting the runs of deleted threads, without waiting for the sweep."""
    return delete(keys, "", "")
