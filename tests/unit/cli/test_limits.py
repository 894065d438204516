"""Gates and budgets as an operator sees them: names whole, amounts in their units, what is near its end marked."""

from io import StringIO

from rich.console import Console, RenderableType

from techrevati.cli.limits import budgets_table, gates_table
from techrevati.cli.why import explain
from techrevati.fleet.budgets import BudgetLine
from techrevati.fleet.gates import GateLine, unasked
from techrevati.store.records import RunRecord


def drawn(renderable: RenderableType, *, width: int = 100) -> list[str]:
    console = Console(width=width, color_system=None, file=StringIO(), record=True)
    console.print(renderable)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_gates_show_breaker_slots_line_and_what_buckets_hold() -> None:
    levels, room = {"rpm": 499.6, "input_tpm": -20.0}, {"rpm": 500.0, "input_tpm": 200_000.0}
    lines = drawn(
        gates_table(
            [
                GateLine("openai:gpt-5-mini", "half_open", "", 0.0, 3, 2, 7, 64.0, 12, levels, room, "w1"),
                GateLine("search", "closed", "open", 42.0, 0, 0, 0, None, 0, {}, {}, "w1"),
                unasked("never-called"),
            ]
        )
    )
    assert lines[1].split() == ["openai:gpt-5-mini", "half", "open", "–", "3", "7/64", "12", "input_tpm", "0/200k"]
    assert lines[2].split() == ["rpm", "500/500"]
    assert lines[3].split() == ["search", "open", "by", "hand", "42.0s", "–", "–", "–", "–"]
    assert lines[4].split() == ["never-called", "closed", "–", "–", "–", "–", "–"]
    assert drawn(gates_table([]))[-1] == "no gates"


def test_a_long_name_is_never_cut() -> None:
    name = "anthropic:claude-" + "x" * 40
    assert name in drawn(gates_table([unasked(name)]), width=80)[1]


def test_budgets_show_dollars_and_tokens_per_window() -> None:
    lines = drawn(
        budgets_table(
            [
                BudgetLine("acme", "tenant", "usd.day", 20_000_000, 16_500_000, 500_000, 0),
                BudgetLine("acme", "project:a", "tokens.total", None, 12_345, 0, 99),
            ]
        )
    )
    assert lines[1].split() == ["acme", "tenant", "day", "$16.50", "$0.5000", "$20.00", "85%", "–"]
    assert lines[2].split() == ["acme", "project:a", "total", "12k", "tok", "–", "–", "–", "99", "tok"]
    assert drawn(budgets_table([]))[-1] == "no budgets"


def test_why_names_the_gate_and_how_long_its_line_is() -> None:
    fields = {"thread": "t", "tenant": "acme", "role": "writer", "status": "waiting", "home": "due", "why": "gate:m"}
    said = explain(RunRecord.parse("r", fields), ["0", "0", "4"], 0.0)
    assert said == "it has its place in the line of gate 'm'; `techrevati gates` shows the gate"
