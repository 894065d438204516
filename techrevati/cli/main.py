"""The ``techrevati`` command: run a fleet, look at it, act on it.

demo · up · worker · coordinator            processes
runs · show · events · why · pools · dead   looking
thread · checkpoints · fork · delete        threads
gates · budgets                             shared limits
decide · cancel · steer · retry · drain     acting
doctor                                      proving
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from techrevati.cli import threads
from techrevati.cli.loading import load_fleet
from techrevati.cli.options import FleetName, RunId, Url, client_for, out
from techrevati.fleet.settings import load_settings
from techrevati.runtime.errors import TechrevatiError
from techrevati.store.records import RunRecord

app = typer.Typer(
    name="techrevati",
    help="A distributed runtime for LLM agents on Celery and Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
err = Console(stderr=True)

Target = Annotated[str, typer.Argument(help="MODULE:NAME of your Fleet, such as examples.newsroom:fleet")]

# -- processes -------------------------------------------------------------------------------------


@app.command()
def demo(
    document: Annotated[Path, typer.Argument(help="a text or Markdown document of a few pages")],
    words: Annotated[int, typer.Option(min=50, help="length of the article")] = 450,
    model: Annotated[str, typer.Option(help="offline, openai:NAME or anthropic:NAME")] = "offline",
    latency: Annotated[float, typer.Option(min=0, help="seconds the offline model takes per call")] = 0.3,
) -> None:
    """Turn a document into an article: Redis, a coordinator and three Celery workers on this machine."""
    from techrevati.cli.demo import DemoOptions
    from techrevati.cli.demo import demo as run_demo

    signal.signal(signal.SIGTERM, _interrupt)
    raise typer.Exit(run_demo(document, DemoOptions(words, model, latency), out))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@app.command()
def up(
    target: Target,
    concurrency: Annotated[int, typer.Option(min=1, help="turns each worker holds")] = 100,
    reload: Annotated[bool, typer.Option(help="start anew when a .py file below this directory changes")] = True,
) -> None:
    """Run your whole fleet on this machine, with an embedded Redis unless TECHREVATI_REDIS_URL is set."""
    from techrevati.cli.local import LocalFleet

    fleet = load_fleet(target)
    url = os.environ.get("TECHREVATI_REDIS_URL")
    signal.signal(signal.SIGTERM, _interrupt)
    with LocalFleet(target, fleet.name, fleet.roles, url=url, concurrency=concurrency) as local:
        out.print(f"fleet {fleet.name} is up: {', '.join(fleet.roles)}", highlight=False)
        out.print(f"  TECHREVATI_REDIS_URL={local.url}", highlight=False, soft_wrap=True)
        out.print(f"  logs: {local.logs}; stop with Ctrl-C", highlight=False, soft_wrap=True)
        seen = _newest_source() if reload else 0.0
        while True:
            time.sleep(0.5)
            local.check()
            if reload and (newest := _newest_source()) > seen:
                seen = newest
                out.print("a source file changed: new processes", highlight=False)
                local.reload()


def _newest_source() -> float:
    files = (file for file in Path.cwd().rglob("*.py") if not any(part.startswith(".") for part in file.parts[1:]))
    return max((file.stat().st_mtime for file in files), default=0.0)


@app.command()
def worker(
    target: Target,
    role: Annotated[str, typer.Option("--role", "-r", help="whose turns this process runs")],
    concurrency: Annotated[int | None, typer.Option(min=1, help="turns it holds; default from the settings")] = None,
    pool: Annotated[str | None, typer.Option(help="asyncio (default), prefork or threads")] = None,
    loglevel: Annotated[str, typer.Option(help="Celery's log level")] = "INFO",
) -> None:
    """Serve one role: a Celery worker, set up."""
    fleet = load_fleet(target)
    if concurrency is not None:
        os.environ["TECHREVATI_CONCURRENCY"] = str(concurrency)
    celery = fleet.celery_for(role)
    arguments = ["worker", "--loglevel", loglevel, "--hostname", f"{role}.{os.getpid()}@%h"]
    if pool not in (None, "asyncio"):
        arguments += ["--pool", str(pool)]
    celery.worker_main(arguments)


@app.command()
def coordinator(
    target: Annotated[
        str | None, typer.Argument(help="MODULE:NAME of your Fleet, or leave it and give --fleet")
    ] = None,
    fleet: Annotated[str, typer.Option("--fleet", "-f", help="the fleet's name, if no module is given")] = "",
) -> None:
    """Place handoffs and sweep: run two or more, they share the work."""
    from techrevati.fleet.coordinating import coordinate
    from techrevati.telemetry.logs import configure

    settings = load_settings()
    configure(settings.log_level, as_json=settings.log_json)
    if target is not None:
        loaded = load_fleet(target)
        asyncio.run(coordinate(loaded.name, loaded.settings, [agent.card for agent in loaded.agents.values()]))
    elif fleet:
        asyncio.run(coordinate(fleet, settings, []))
    else:
        raise typer.BadParameter("give MODULE:NAME or --fleet NAME")


# -- looking ---------------------------------------------------------------------------------------


def _row(record: RunRecord, now: float) -> dict[str, Any]:
    waits = record.why
    if record.why == "decision" and record.waits_for:
        waits = "decision: " + ", ".join(str(call["call_id"]) for call in record.waits_for)
    elif record.detail and record.why in ("route", "handoff"):
        waits = record.detail
    return {
        "run_id": record.run_id,
        "thread_id": record.thread_id,
        "tenant": record.tenant,
        "role": record.role,
        "status": record.status.value,
        "turn": record.turn,
        "waits_for": waits if not record.status.is_terminal else "",
        "age": now - record.created if record.created else None,
    }


@app.command()
def runs(
    fleet: FleetName,
    status: Annotated[
        list[str] | None, typer.Option(help="queued, running, waiting, completed, …; may be repeated")
    ] = None,
    tenant: Annotated[str | None, typer.Option()] = None,
    role: Annotated[str | None, typer.Option()] = None,
    thread: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    url: Url = None,
) -> None:
    """List runs, the newest first."""
    from techrevati.cli.tables import render_runs_table

    with client_for(fleet, url) as client:
        found = client.list_runs(status=status, tenant=tenant, role=role, thread_id=thread, limit=limit)
    rows = [_row(record, time.time()) for record in found]
    if as_json:
        for row in rows:
            print(json.dumps(row))  # noqa: T201 - for pipes, not for eyes
    else:
        out.print(render_runs_table(rows))


@app.command()
def dead(fleet: FleetName, url: Url = None) -> None:
    """List the dead letters, and why each died."""
    with client_for(fleet, url) as client:
        found = client.list_runs(status="dead", calls=True, limit=1000)
    for record in found:
        message = record.error.get("message", "") if isinstance(record.error, dict) else record.error
        out.print(f"{record.run_id}  {record.role}  turn {record.turn}: {message}", highlight=False, soft_wrap=True)
    out.print(f"{len(found)} dead; `techrevati retry --fleet {fleet} RUN` sends one back to work", highlight=False)


@app.command()
def show(run: RunId, fleet: FleetName, url: Url = None) -> None:
    """Show all that is known of one run."""
    from techrevati.cli.tables import render_status

    with client_for(fleet, url) as client:
        record = client.record(run)
    more = {
        name: getattr(record, name)
        for name in ("attempt", "failures", "hops", "worker", "output", "error", "input_tokens", "output_tokens")
    }
    out.print(render_status({**_row(record, time.time()), **more}))


@app.command()
def events(
    run: RunId,
    fleet: FleetName,
    after: Annotated[str | None, typer.Option(help="go on behind this event's id")] = None,
    follow: Annotated[bool, typer.Option(help="wait for more until the run ends")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    url: Url = None,
) -> None:
    """Follow a run's events."""
    from techrevati.cli.view import plain_line

    with client_for(fleet, url) as client:
        for event in client.run(run).events(after=after, follow=follow):
            if as_json:
                print(json.dumps(event.as_dict()), flush=True)  # noqa: T201 - for pipes, not for eyes
            elif line := plain_line(event.as_dict()):
                out.print(line, highlight=False, soft_wrap=True)


@app.command()
def why(run: RunId, fleet: FleetName, url: Url = None) -> None:
    """Say in words what a run waits for."""
    from techrevati.cli.why import explain

    with client_for(fleet, url) as client:
        record = client.record(run)
        account = client.store.command("HMGET", client.keys(run).tickets(record.role), "ready", "out", "window")
    out.print(explain(record, account, time.time()), highlight=False, soft_wrap=True)


@app.command()
def pools(fleet: FleetName, url: Url = None) -> None:
    """Show what waits and what serves, per role."""
    from techrevati.cli.why import pools_table
    from techrevati.fleet.coordinator import fencing_refusals, fleet_stats
    from techrevati.fleet.registry import partitions_of
    from techrevati.store.aio import AsyncStore

    with client_for(fleet, url) as client:
        keys, store_url = partitions_of(fleet, client.partitions), client.settings.redis_url

    async def read() -> tuple[dict[str, dict[str, float]], int]:
        store = AsyncStore(store_url)
        try:
            return await fleet_stats(store, keys), await fencing_refusals(store, keys)
        finally:
            await store.close()

    stats, refused = asyncio.run(read())
    out.print(pools_table(stats))
    out.print(f"{refused} commits refused by fencing since the fleet began", highlight=False)


@app.command()
def gates(fleet: FleetName, url: Url = None) -> None:
    """Show what each gate admits: breaker, buckets, slots, who waits."""
    from techrevati.cli.limits import gates_table

    with client_for(fleet, url) as client:
        out.print(gates_table(client.gates()))


@app.command()
def budgets(
    fleet: FleetName,
    tenant: Annotated[str | None, typer.Option(help="only this tenant's")] = None,
    level: Annotated[list[str] | None, typer.Option(help="also thread:ID or run:ID; may be repeated")] = None,
    url: Url = None,
) -> None:
    """Show what is spent, reserved and allowed, per tenant and project."""
    from techrevati.cli.limits import budgets_table

    with client_for(fleet, url) as client:
        out.print(budgets_table(client.budgets(tenant, *(level or ()))))


# -- acting ----------------------------------------------------------------------------------------


@app.command()
def decide(
    run: RunId,
    call: Annotated[str, typer.Argument(help="the suspended call's id")],
    fleet: FleetName,
    action: Annotated[str, typer.Option(help="resume or cancel")] = "resume",
    payload: Annotated[str, typer.Option(help="JSON for the agent")] = "null",
    url: Url = None,
) -> None:
    """Answer a call that a run waits for."""
    try:
        body = json.loads(payload)
    except ValueError as error:
        raise typer.BadParameter(f"--payload is not JSON: {error}") from None
    with client_for(fleet, url) as client:
        first = client.run(run).decide(call, action, body)  # type: ignore[arg-type]  # checked there
    out.print("decided" if first else "this decision had arrived before", highlight=False)


@app.command()
def cancel(
    run: RunId,
    fleet: FleetName,
    reason: Annotated[str, typer.Option()] = "cancelled by an operator",
    url: Url = None,
) -> None:
    """Stop a run and its sub-agents."""
    with client_for(fleet, url) as client:
        out.print(client.run(run).cancel(reason), highlight=False)


@app.command()
def steer(run: RunId, message: str, fleet: FleetName, url: Url = None) -> None:
    """Put a user's message into a live run."""
    with client_for(fleet, url) as client:
        client.run(run).steer(message)
    out.print("the next turn will see it", highlight=False)


@app.command()
def retry(run: RunId, fleet: FleetName, url: Url = None) -> None:
    """Send a dead, failed or cancelled run back to the turn it ended in."""
    with client_for(fleet, url) as client:
        out.print(client.run(run).retry(), highlight=False)


@app.command()
def drain(
    fleet: FleetName,
    role: Annotated[str | None, typer.Option("--role", "-r", help="only this role's workers")] = None,
    url: Url = None,
) -> None:
    """Tell this machine's workers to finish or release their turns and leave."""
    from techrevati.cli.why import drain_here

    with client_for(fleet, url) as client:
        names = drain_here(client.store, fleet, role)
    for name in names:
        out.print(f"{name} drains", highlight=False)
    out.print(f"{len(names)} workers on this machine were told to leave", highlight=False)


for _command in threads.COMMANDS:
    app.command()(_command)


# -- proving ---------------------------------------------------------------------------------------


@app.command()
def doctor(
    fleet: FleetName,
    keys: Annotated[bool, typer.Option("--keys", help="also prove that every key has an owner or a TTL")] = False,
    url: Url = None,
) -> None:
    """Prove the one invariant on a live fleet: every run stands in exactly one home."""
    from techrevati.store.doctor import check

    begun = time.monotonic()
    with client_for(fleet, url) as client:
        partitions = client.partitions
        findings = check(client.store, fleet, partitions, keys=keys)
    for finding in findings:
        out.print(f"[red]✗[/] {finding}", highlight=False, soft_wrap=True)
    took = time.monotonic() - begun
    if findings:
        out.print(f"{len(findings)} findings in {partitions} partitions ({took:.1f} s)", highlight=False)
        raise typer.Exit(1)
    out.print(f"fleet {fleet}: {partitions} partitions are sound ({took:.1f} s)", highlight=False)


def main() -> None:
    """Run the command; what went wrong on purpose is one line, without a traceback."""
    try:
        app()
    except TechrevatiError as error:
        err.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except (ValueError, TimeoutError) as error:
        err.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
