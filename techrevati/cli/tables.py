"""Runs as tables, for ``techrevati runs`` and ``techrevati show``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import Box
from rich.table import Column, Table
from rich.text import Text

from techrevati.cli.events import text_of
from techrevati.cli.units import NOTHING, clean, count, dollars, duration

# A rule below the head and one above the foot, nothing else.
RULES = Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n")

_STATUS_STYLE = {
    "queued": "cyan",
    "running": "green",
    "waiting": "yellow",
    "completed": "bold green",
    "failed": "bold red",
    "dead": "bold red",
    "cancelled": "magenta",
    "superseded": "dim",
}
_COLUMNS = {
    "run": "run_id",
    "thread": "thread_id",
    "tenant": "tenant",
    "role": "role",
    "status": "status",
    "turn": "turn",
    "waits for": "waits_for",
    "age": "age",
}
_AMOUNTS: Mapping[str, Callable[[float], str]] = {
    "age": duration,
    "seconds": duration,
    "elapsed": duration,
    "cost_micros": lambda micros: dollars(int(micros)),
    "tokens": lambda number: count(int(number)),
    "input_tokens": lambda number: f"{int(number):,}",
    "output_tokens": lambda number: f"{int(number):,}",
}


def render_runs_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Tabulate runs: ``run_id thread_id tenant role status turn waits_for age`` (s); any may be missing."""
    ids = max((len(text_of(run.get("run_id"))) for run in runs), default=8)
    table = Table(
        Column("run", no_wrap=True, min_width=ids),  # what an operator copies is never cut
        Column(_head("thread"), overflow="ellipsis"),
        Column(_head("tenant"), overflow="ellipsis"),
        Column(_head("role"), overflow="ellipsis"),
        Column("status", no_wrap=True, min_width=9),
        Column("turn", no_wrap=True, justify="right", min_width=4),
        Column(_head("waits for"), overflow="ellipsis"),
        Column("age", no_wrap=True, justify="right", min_width=5),
        box=RULES,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        header_style="dim",
        caption=None if runs else "no runs",
        caption_justify="left",
    )
    for run in runs:
        cells = [_cell(key, run.get(key)) for key in _COLUMNS.values()]
        for cell in cells:  # the column may shrink, the text must not wrap
            cell.no_wrap = True
        table.add_row(*cells)
    return table


def render_checkpoints(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Tabulate checkpoints: ``version turn at messages run_id``."""
    table = Table(
        Column("version", justify="right", no_wrap=True),
        Column("turn", justify="right", no_wrap=True),
        Column("at", no_wrap=True),
        Column("messages", justify="right", no_wrap=True),
        Column("run", no_wrap=True),
        box=RULES,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        header_style="dim",
        caption=None if rows else "no checkpoints",
        caption_justify="left",
    )
    for row in rows:
        table.add_row(*(_cell(key, row[key]) for key in ("version", "turn", "at", "messages", "run_id")))
    return table


def render_status(run: Mapping[str, Any]) -> Table:
    """List what is known of one run: the columns of the runs table first, then the rest as given."""
    table = Table.grid(Column(style="dim", no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0))
    named = [(name, key) for name, key in _COLUMNS.items() if run.get(key) is not None]
    rest = [(key.replace("_micros", "").replace("_", " "), key) for key in run if key not in _COLUMNS.values()]
    for name, key in [*named, *rest]:
        table.add_row(Text(clean(name)), _cell(key, run[key]))
    return table


def status_text(status: str) -> Text:
    """Give a status as a word in its colour."""
    return Text(clean(status), style=_STATUS_STYLE.get(status, ""))


def _head(name: str) -> Text:
    return Text(name, no_wrap=True, overflow="ellipsis")


def _cell(key: str, value: Any) -> Text:
    if value is None or value == "":
        return Text(NOTHING, style="dim")
    if key == "status":
        return status_text(str(value))
    if key in _AMOUNTS and isinstance(value, int | float):
        return Text(_AMOUNTS[key](value))
    if isinstance(value, list | tuple):
        return Text(clean(", ".join(text_of(item) for item in value)))
    return Text(clean(text_of(value)), style="red" if key == "error" else "")
