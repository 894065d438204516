"""What a tired person sees: aligned, 80 columns, no surprises from foreign text."""

from dataclasses import replace
from io import StringIO
from typing import Any

from rich.console import Console, RenderableType

from techrevati.cli.progress import Handoff, Progress, RoleState, RoleView, begin, fold
from techrevati.cli.view import plain_line, render, render_runs_table, render_status, summary

NOW = 1_000_010.0


def drawn(renderable: RenderableType, *, width: int = 80) -> list[str]:
    console = Console(width=width, color_system=None, file=StringIO(), record=True)
    console.print(renderable)
    return console.export_text().splitlines()


WRITER = RoleView(
    "writer",
    state=RoleState.WORKING,
    turn=5,
    attempt=2,
    since=1_000_007.5,
    model="offline",
    turns=4,
    handoffs=2,
    retries=1,
    lost=1,
    input_tokens=12_345,
    output_tokens=678,
    cost_micros=2_259,
    seconds=1.25,
)
STATE = replace(
    begin(("researcher", "writer")),
    run_id="run-1",
    status="running",
    role="writer",
    roles=(RoleView("researcher"), WRITER),
    gates={"offline": "half_open"},
    trail=("researcher", "writer"),
    moved=Handoff("researcher", "writer", "4 parts read"),
    progress=Progress(93, 100, "quality"),
    text="The tide is the only renewable source.",
    started_at=1_000_000.0,
)


def test_one_line_per_role_tells_all_of_it() -> None:
    row = next(line for line in drawn(render(STATE, NOW)) if line.startswith("writer"))
    assert row.split() == ["writer", "working", row.split()[2], "5", "2", "half_open", "12k", "678", "$0.0023", "3.8s"]


def test_the_picture_fits_80_by_24_and_keeps_its_height() -> None:
    quiet, busy = drawn(render(begin(("researcher", "writer")), NOW)), drawn(render(STATE, NOW))
    assert max(map(len, busy)) <= 80
    assert len(busy) <= 24
    assert len(busy) - len(quiet) == 1  # the breaker's own line


def test_trail_progress_reason_and_text_are_shown() -> None:
    picture = "\n".join(drawn(render(STATE, NOW)))
    for part in ("researcher → writer", "4 parts read", "93 of 100  quality", "│ The tide is the only"):
        assert part in picture


def test_a_long_trail_keeps_its_end() -> None:
    state = replace(STATE, trail=("researcher", *("writer", "editor") * 12))
    line = next(line for line in drawn(render(state, NOW)) if "→" in line)
    assert line.startswith("… → ") and line.endswith("→ editor") and len(line) <= 80


def test_a_handoff_under_way_is_marked() -> None:
    state = replace(STATE, moving=Handoff("writer", "editor", "draft 1"))
    assert any("writer ⇢ editor?" in line for line in drawn(render(state, NOW)))


def test_a_breaker_is_found_when_its_gate_carries_the_provider() -> None:
    state = replace(STATE, gates={"openai:gpt-5-mini": "open"}, roles=(replace(WRITER, model="gpt-5-mini"),))
    assert any(line.startswith("writer") and " open " in line for line in drawn(render(state, NOW)))


def test_a_wait_counts_down() -> None:
    waiting = replace(WRITER, state=RoleState.WAITING, why="transient: slow", until=NOW + 2.0, since=None)
    state = replace(STATE, roles=(waiting,))
    assert "writer: transient: slow, again in 2.0s" in drawn(render(state, NOW))


def test_foreign_text_cannot_reach_the_terminal_as_commands() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J[red]plain[/red]\r\u202eworld"
    state = replace(STATE, text=hostile, error=hostile, trail=(hostile,))
    picture = "\n".join(drawn(render(state, NOW)))
    assert "\x1b" not in picture and "\u202e" not in picture and "owned" not in picture
    assert "[red]plain[/red] world" in picture
    line = plain_line({"type": "run.failed", "at": 1.0, "data": {"error": hostile}})
    assert line == "00:00:01  run failed: [red]plain[/red] world"


def test_the_summary_adds_up_and_aligns() -> None:
    state = replace(STATE, roles=(WRITER, replace(WRITER, role="editor", lost=0)), status="completed", ended_at=NOW)
    lines = drawn(summary(state))
    total = next(line for line in lines if line.startswith("total"))
    assert total.split() == ["total", "8", "4", "2", "24,690", "1,356", "$0.0045", "2.5s"]
    row = next(line for line in lines if line.startswith("writer"))
    assert len(row.rstrip()) == len(total.rstrip()) <= 80
    assert lines[-1].strip() == "completed after 10.0s; 1 of the retries because a worker died"


def test_runs_keep_their_whole_id_and_their_age_in_80_columns() -> None:
    run: dict[str, Any] = {
        "run_id": "r-0123456789abcdef01234567",
        "thread_id": "a-very-long-thread-name",
        "tenant": "default",
        "role": "researcher",
        "status": "waiting",
        "turn": 12,
        "waits_for": "decision call_7f31",
        "age": 4_000.0,
    }
    lines = drawn(render_runs_table([run, {"run_id": "r-2"}]))
    assert lines[2].startswith("r-0123456789abcdef01234567 ") and lines[2].rstrip().endswith("1h06m")
    assert max(map(len, lines)) <= 80
    assert "no runs" in drawn(render_runs_table([]))[-1]


def test_status_lists_what_is_known_and_nothing_else() -> None:
    lines = drawn(render_status({"run_id": "r-1", "age": 3.0, "tenant": None, "cost_micros": 1_234, "error": "x"}))
    assert [line.split() for line in lines] == [["run", "r-1"], ["age", "3.0s"], ["cost", "$0.0012"], ["error", "x"]]


def test_plain_lines_say_what_happened() -> None:
    data = {"role": "writer", "turn": 5, "attempt": 2, "worker": "w1"}
    assert plain_line({"type": "turn.started", "at": 60.0, "data": data}) == (
        "00:01:00  writer: turn 5 starts on w1, attempt 2"
    )
    handoff = {"source": "writer", "target": "editor", "reason": "draft 1"}
    assert plain_line({"type": "handoff.requested", "at": 60.0, "data": handoff}) == (
        "00:01:00  writer hands off to editor: draft 1"
    )
    assert plain_line({"type": "text.delta", "at": 1.0, "data": {"text": "x"}}) is None
    assert plain_line({"type": "invented.later", "data": {}}) is None


def test_a_custom_progress_event_fills_the_bar() -> None:
    state = fold(begin(), {"type": "progress", "data": {"done": 2, "total": 4, "label": "parts"}}, NOW)
    assert any("2 of 4  parts" in line for line in drawn(render(state, NOW)))
