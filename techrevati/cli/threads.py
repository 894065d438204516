"""Commands about whole threads: look at one, list its checkpoints, fork it, delete it."""

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from techrevati.cli.options import FleetName, RunId, Url, client_for, out
from techrevati.cli.tables import render_checkpoints, render_status
from techrevati.fleet.forking import ForkOptions

ThreadId = Annotated[str, typer.Argument(help="the thread's id")]
Tenant = Annotated[str, typer.Option(help="whose thread it is")]
At = Annotated[int | None, typer.Option(min=0, help="a version, as `techrevati checkpoints` lists them")]


def thread(
    thread: ThreadId,
    fleet: FleetName,
    tenant: Tenant = "default",
    at: At = None,
    limit: Annotated[int, typer.Option(min=1, help="messages shown, the first ones")] = 20,
    url: Url = None,
) -> None:
    """Show a thread, now or as of a version: its messages, its state."""
    with client_for(fleet, url) as client:
        handle = client.thread(thread, tenant=tenant)
        record, page, state = handle.status(), handle.messages(at=at, limit=limit), handle.state(at=at)
    shown: dict[str, Any] = {
        "thread_id": record.thread_id,
        "tenant": record.tenant,
        "version": record.version if at is None else at,
        "active_run": record.active_run,
        "age": time.time() - record.created,
        **({"forked_from": f"{record.forked_from[0]} at {record.forked_from[1]}"} if record.forked_from else {}),
        "state": json.dumps(state, ensure_ascii=False),
    }
    out.print(render_status(shown))
    for message in page.messages:
        said = message if isinstance(message, dict) else {"role": "", "content": message}
        out.print(f"{said.get('role', '')}: {said.get('content', '')}", highlight=False, soft_wrap=True, markup=False)
    if page.cursor is not None:
        out.print(f"… {record.messages - page.cursor} more; --limit shows them", highlight=False)


def checkpoints(
    thread: ThreadId,
    fleet: FleetName,
    tenant: Tenant = "default",
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    url: Url = None,
) -> None:
    """List the versions of a thread that one can go back to, the newest first."""
    with client_for(fleet, url) as client:
        found = client.checkpoints(thread, tenant=tenant, limit=limit)
    rows: list[dict[str, Any]] = [
        {
            "version": one.version,
            "turn": one.turn,
            "at": datetime.fromtimestamp(one.at, UTC).isoformat(timespec="seconds"),
            "messages": one.messages,
            "run_id": one.run_id,
        }
        for one in found
    ]
    if as_json:
        for row in rows:
            print(json.dumps(row))  # noqa: T201 - for pipes, not for eyes
    else:
        out.print(render_checkpoints(rows))


def fork(
    run: RunId,
    fleet: FleetName,
    at: At = None,
    input: Annotated[str | None, typer.Option(help="JSON: begin anew with it; without it, go on")] = None,
    agent: Annotated[str | None, typer.Option(help="who has the first turn")] = None,
    url: Url = None,
) -> None:
    """Start a run on a copy of a run's thread, as of a checkpoint: the newest of the run, or --at."""
    options: ForkOptions = {"agent": agent}
    if input is not None:
        try:
            options["input"] = json.loads(input)
        except ValueError as error:
            raise typer.BadParameter(f"--input is not JSON: {error}") from None
    with client_for(fleet, url) as client:
        made = client.run(run).fork(at, **options)
        record = made.status()
    out.print(f"{made.id}  on thread {record.thread_id}", highlight=False, soft_wrap=True)


def delete(
    thread: ThreadId,
    fleet: FleetName,
    tenant: Tenant = "default",
    force: Annotated[bool, typer.Option("--force", help="also if a run is active on it: it is revoked")] = False,
    url: Url = None,
) -> None:
    """Delete a thread with its messages, state, runs and events; there is no way back."""
    with client_for(fleet, url) as client:
        known = client.thread(thread, tenant=tenant).delete(force=force)
    out.print("deleted" if known else "there is no such thread", highlight=False)


COMMANDS = (thread, checkpoints, fork, delete)
