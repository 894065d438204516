"""The scripts, one function each: the same arguments, the same reply, on a `Partition` in memory.

    speak(partition, call, now) ──▶ run_start(...) · run_claim(...) · ... ──▶ reply

This is the protocol to read.  Each function mirrors ``lua/<its name>.lua``, whose header says what the arguments
and the reply are; the property tests send both the same calls and compare replies and records.
"""

from collections.abc import Callable
from typing import Any

from techrevati.store.calls import Call
from techrevati.store.scripts import PROTOCOL
from techrevati.store.twin.commit import turn_commit
from techrevati.store.twin.coordinate import partition_lease, pool_beat, run_route
from techrevati.store.twin.drop import thread_delete
from techrevati.store.twin.lease import live_append, run_claim, run_release, run_renew, step_begin, step_end
from techrevati.store.twin.outside import inbox_put, run_cancel, run_retry
from techrevati.store.twin.records import Partition
from techrevati.store.twin.start import run_fork, run_start
from techrevati.store.twin.sweep import run_sweep
from techrevati.store.twin.unit import Refused, Reply, enter

SCRIPTS: dict[str, Callable[..., Reply]] = {
    function.__name__: function
    for function in (
        *(run_start, run_claim, turn_commit, run_release, run_renew, step_begin, step_end, live_append),
        *(inbox_put, run_cancel, run_retry, run_route, run_sweep, pool_beat, partition_lease),
        *(run_fork, thread_delete),
    )
}


def speak(p: Partition, call: Call[Any], now: int) -> Reply:
    """Say to the twin what a client says to Redis."""
    try:
        return SCRIPTS[call.script](enter(p, PROTOCOL, now), *map(str, call.args))
    except Refused as refused:
        return refused.reply
