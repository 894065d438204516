"""What a watched run looks like in a terminal: a live picture, and a table at the end.

    ProgressState ──render──▶ rich.live.Live        (a terminal)
    event ──────plain_line──▶ one line, or none     (a file, a pipe, a CI log)

Pure: state in, renderables out.  Every state is a word as well as a colour.
"""

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from techrevati.cli.plain import plain_line
from techrevati.cli.progress import ProgressState, RoleState, RoleView
from techrevati.cli.tables import RULES, render_runs_table, render_status, status_text
from techrevati.cli.units import NOTHING, clean, clip, count, dollars, duration

__all__ = ["plain_line", "render", "render_runs_table", "render_status", "summary"]

TEXT_LINES = 3
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ROLE_STYLE = {
    RoleState.IDLE: "dim",
    RoleState.QUEUED: "cyan",
    RoleState.WORKING: "bold green",
    RoleState.WAITING: "yellow",
    RoleState.FAILED: "bold red",
}
_BREAKER_STYLE = {"closed": "green", "open": "bold red", "half_open": "yellow"}


def render(state: ProgressState, now: float) -> RenderableType:
    """Draw the run as it stands; the height changes only when a role or a trouble is new."""
    return Group(
        _title(state, now),
        Text(),
        _roles(state, now),
        Text(),
        _Trail(state),
        _bar(state, now),
        *_troubles(state, now),
        Text(),
        _Tail(state.text),
    )


def _title(state: ProgressState, now: float) -> RenderableType:
    elapsed = _elapsed(state, now)
    turns = sum(view.turns for view in state.roles)
    line = Table.grid(Column(no_wrap=True), Column(justify="right", no_wrap=True), expand=True)
    line.add_row(
        Text.assemble(("run ", "dim"), clip(clean(state.run_id), 26) or NOTHING, "  ", status_text(state.status)),
        Text.assemble(
            (f"turns {turns}  tokens {count(_tokens(state))}  ", "dim"),
            dollars(sum(view.cost_micros for view in state.roles)),
            "  ",
            (duration(elapsed), "bold"),
        ),
    )
    return line


def _elapsed(state: ProgressState, now: float) -> float:
    if state.started_at is None:
        return 0.0
    return max(0.0, (now if state.ended_at is None else state.ended_at) - state.started_at)


def _tokens(state: ProgressState) -> int:
    return sum(view.input_tokens + view.output_tokens for view in state.roles)


def _roles(state: ProgressState, now: float) -> Table:
    table = Table(
        Column("role", ratio=1, no_wrap=True),
        Column("state", width=9, no_wrap=True),
        Column("turn", justify="right", width=4),
        Column("try", justify="right", width=3),
        Column("breaker", width=9, no_wrap=True),
        Column("in", justify="right", width=5),
        Column("out", justify="right", width=5),
        Column("cost", justify="right", width=8),
        Column("time", justify="right", width=6),
        box=None,
        expand=True,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        header_style="dim",
    )
    for view in state.roles:
        breaker = _breaker(state, view.model)
        under_way = max(0.0, now - view.since) if view.since is not None else 0.0
        table.add_row(
            Text(clean(view.role), style="bold" if view.role == state.role and not state.is_over else ""),
            _doing(view, now),
            str(view.turn) if view.turn else NOTHING,
            Text(str(view.attempt), style="yellow" if view.attempt > 1 else "") if view.turn else NOTHING,
            Text(clean(breaker), style=_BREAKER_STYLE.get(breaker, "")) if breaker else NOTHING,
            count(view.input_tokens),
            count(view.output_tokens),
            dollars(view.cost_micros),
            duration(view.seconds + under_way),
        )
    return table


def _breaker(state: ProgressState, model: str) -> str:
    """Give the breaker of a model's gate, whose name may carry the provider; closed until it says otherwise."""
    known = (breaker for gate, breaker in state.gates.items() if gate.rpartition(":")[2] == model.rpartition(":")[2])
    return next(known, "closed") if model else ""


def _doing(view: RoleView, now: float) -> Text:
    mark = _SPINNER[int(now * 10) % len(_SPINNER)] if view.state is RoleState.WORKING else " "
    return Text(f"{view.state}" if mark == " " else f"{view.state} {mark}", style=_ROLE_STYLE[view.state])


def _bar(state: ProgressState, now: float) -> RenderableType:
    if state.progress is None:
        return Text("no progress reported yet" if not state.is_over else "", style="dim")
    done, total = state.progress.done, state.progress.total
    line = Table.grid(Column(width=40), Column(), padding=(0, 2, 0, 0))
    line.add_row(
        ProgressBar(total=total, completed=done, width=40),
        Text(f"{done:g} of {total:g}  {clip(clean(state.progress.label), 24)}", style="dim"),
    )
    return line


def _troubles(state: ProgressState, now: float) -> list[Text]:
    """Say why a role does not work, and when it will."""
    lines = []
    for view in state.roles:
        if not view.why:
            continue
        wait = f", again in {duration(view.until - now)}" if view.until and view.until > now else ""
        lines.append(
            Text(f"{clean(view.role)}: {clean(view.why)}{wait}", style="yellow", overflow="ellipsis", no_wrap=True)
        )
    for gate, breaker in state.gates.items():
        if breaker not in ("closed", ""):
            style = _BREAKER_STYLE.get(breaker, "yellow")
            lines.append(Text(f"breaker of {clean(gate)}: {clean(breaker)}", style=style))
    if state.error:
        lines.append(Text(f"{state.status}: {clean(state.error)}", style="bold red"))
    return lines


class _Trail:
    """The roles that held the run; what does not fit goes from the beginning."""

    def __init__(self, state: ProgressState) -> None:
        self._state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        state, width = self._state, options.max_width
        names = [clean(role) for role in state.trail] or [NOTHING]
        pending = f" ⇢ {clean(state.moving.target)}?" if state.moving else ""
        while len(names) > 1 and len(" → ".join(names)) + len(pending) > width:
            names = ["…", *names[2:]] if names[0] == "…" else ["…", *names[1:]]
        line = Text(no_wrap=True, overflow="ellipsis")
        for index, name in enumerate(names):
            last = index == len(names) - 1
            line.append(name, style="bold" if last and not state.is_over else "")
            line.append("" if last else " → ", style="dim")
        line.append(pending, style="yellow")
        yield line
        hop = state.moving or state.moved
        why = f"{clean(hop.source)} to {clean(hop.target)}: {clean(hop.reason)}" if hop and hop.reason else ""
        yield Text(clip(why, width), style="dim", no_wrap=True)


class _Tail:
    """The end of streamed text, always on the same number of lines."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(options.max_width - 2, 1)
        lines = list(Text(clean(self._text)).wrap(console, width))[-TEXT_LINES:]
        for index in range(TEXT_LINES):
            yield Text.assemble(("│ ", "dim"), lines[index] if index < len(lines) else "")


def summary(state: ProgressState) -> Table:
    """Tabulate what each role did, with a row of totals."""
    rows = state.roles
    table = Table(
        Column("role", footer="total", no_wrap=True, overflow="ellipsis"),
        *(
            Column(name, justify="right", footer=footer, no_wrap=True)
            for name, footer in (
                ("turns", str(sum(v.turns for v in rows))),
                ("handoffs", str(sum(v.handoffs for v in rows))),
                ("retries", str(sum(v.retries for v in rows))),
                ("tokens in", f"{sum(v.input_tokens for v in rows):,}"),
                ("tokens out", f"{sum(v.output_tokens for v in rows):,}"),
                ("cost", dollars(sum(v.cost_micros for v in rows))),
                ("time", duration(sum(v.seconds for v in rows))),
            )
        ),
        box=RULES,
        show_footer=True,
        header_style="dim",
        footer_style="bold",
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        caption=_remarks(state) or None,
        caption_justify="left",
    )
    for view in rows:
        table.add_row(
            Text(clean(view.role)),
            str(view.turns),
            str(view.handoffs),
            str(view.retries),
            f"{view.input_tokens:,}",
            f"{view.output_tokens:,}",
            dollars(view.cost_micros),
            duration(view.seconds),
        )
    return table


def _remarks(state: ProgressState) -> str:
    lost = sum(view.lost for view in state.roles)
    parts = [f"{state.status} after {duration(_elapsed(state, 0.0))}"] if state.is_over else []
    if lost:
        parts.append(f"{lost} of the retries because a worker died")
    return "; ".join(parts)
