"""Why a run waits, what the pools hold, and whom to drain: small answers for the one on call."""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence

from rich.table import Table

from techrevati.cli.units import duration
from techrevati.fleet.registry import workers_key
from techrevati.store.records import RunRecord, Status, pairs
from techrevati.store.sync import SyncStore


def explain(record: RunRecord, account: Sequence[str | None], now: float) -> str:
    """Say what a run waits for, and until when."""
    ready, out, window = (int(value or 0) for value in account)
    until = f", for {duration(max(0.0, record.until - now))} more" if record.until else ""
    if record.status.is_terminal:
        error = record.error.get("message", record.error) if isinstance(record.error, dict) else record.error
        return f"it waits for nothing: it is {record.status}" + (f" ({error})" if error else "")
    if record.status is Status.RUNNING:
        stop = f"; it was asked to stop: {record.cancelling}" if record.cancelling else ""
        return f"it does not wait: {record.worker} runs turn {record.turn}, attempt {record.attempt + 1}{stop}"
    match record.home, record.why:
        case "line", _:
            return f"it waits behind the active run of thread {record.thread_id!r}"
        case (("ready" | "last"), _) if window == 0:
            return f"it waits for a worker: pool {record.role!r} has none; fix: start one"
        case (("ready" | "last"), _):
            return (
                f"it waits for a free place in pool {record.role!r}: {ready} ready there, {out} tickets out of {window}"
            )
        case "due", "decision":
            asked = ", ".join(repr(call["call_id"]) for call in record.waits_for or ())
            return f"it waits for a decision on {asked}{until}; fix: techrevati decide"
        case "due", "backoff":
            return f"it failed {record.failures} times and tries again{until}: {_message(record.error)}"
        case "due", "route":
            return f"its handoff waits: {record.detail}{until}"
        case "routes", _:
            return "its handoff waits for a coordinator; fix: is one running?"
        case "due", "start":
            return f"it is to begin later{until}"
        case "due", "child":
            return f"it waits for {_awaited(record)}{until}"
        case "due", "timer":
            return f"it sleeps{until}"
        case "due", why if why.startswith("gate:"):
            return f"it has its place in the line of gate {why[5:]!r}{until}; `techrevati gates` shows the gate"
        case _:
            return f"it waits for {record.why}{until}"


def _awaited(record: RunRecord) -> str:
    """Name the sub-agents that a run waits for, and the tools that are at work in pools of their own."""
    waits = record.waits_for or ()
    kids = ", ".join(str(one["child"]) for one in waits if "tool" not in one)
    tools = ", ".join(f"{one['tool']!r} in pool {one['role']!r} ({one['child']})" for one in waits if "tool" in one)
    said = [f"its sub-agents {kids}" if kids else "", f"tool {tools}" if tools else ""]
    return " and ".join(part for part in said if part)


def _message(error: object) -> str:
    return str(error.get("message", error)) if isinstance(error, Mapping) else str(error)


def pools_table(stats: Mapping[str, Mapping[str, float]]) -> Table:
    """Draw what waits and what serves, per role."""
    table = Table(box=None, pad_edge=False)
    table.add_column("role")
    for name in ("workers", "places", "ready", "tickets", "unserved"):
        table.add_column(name, justify="right")
    for role, row in sorted(stats.items()):
        table.add_row(
            role,
            f"{row['workers']:.0f}",
            f"{row['places']:.0f}",
            f"{row['ready']:.0f}",
            f"{row['tickets']:.0f}",
            duration(row["unserved_seconds"]) if row["ready"] else "-",
        )
    return table


def drain_here(store: SyncStore, fleet: str, role: str | None) -> list[str]:
    """Send SIGTERM to the fleet's workers on this machine; gives their names."""
    told = []
    for name, text in pairs(store.command("HGETALL", workers_key(fleet))).items():
        card = json.loads(text)
        if card["host"] == socket.gethostname() and card["until"] and role in (None, card["role"]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(card["pid"], signal.SIGTERM)
                told.append(name)
    return told
