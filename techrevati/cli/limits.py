"""What gates admit and budgets allow, as tables for ``techrevati gates`` and ``techrevati budgets``."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from techrevati.cli.units import NOTHING, clean, count, dollars, duration
from techrevati.fleet.budgets import BudgetLine
from techrevati.fleet.gates import GateLine

_NEAR, _OVER = 0.8, 1.0
_STATES = {"closed": "green", "open": "bold red", "half_open": "yellow"}


def gates_table(lines: Sequence[GateLine]) -> Table:
    """Draw each gate: its breaker, what its buckets hold of what they can, its slots, who waits."""
    table = Table(box=None, pad_edge=False, caption=None if lines else "no gates", caption_justify="left")
    table.add_column("gate", no_wrap=True, min_width=max((len(clean(line.name)) for line in lines), default=4))
    table.add_column("breaker")
    for name in ("for", "failures", "slots", "in line"):
        table.add_column(name, justify="right")
    table.add_column("buckets", no_wrap=True)
    for line in lines:
        state = f"{line.forced} by hand" if line.forced else line.state.replace("_", " ")
        slots = NOTHING if line.slots is None else f"{line.slots_used}/{line.slots:.0f}"
        buckets = [
            f"{name} {count(round(max(0.0, line.levels.get(name, room))))}/{count(round(room))}"
            for name, room in sorted(line.capacities.items())
        ]
        table.add_row(
            clean(line.name),
            Text(state, style=_STATES.get(line.state, "")),
            duration(line.wait) if line.wait else NOTHING,
            str(line.failures) if line.failures else NOTHING,
            slots,
            str(line.in_line) if line.in_line else NOTHING,
            "\n".join(buckets) or NOTHING,
        )
    return table


def budgets_table(lines: Sequence[BudgetLine]) -> Table:
    """Draw what is spent, reserved and allowed, per tenant, level and window."""
    table = Table(box=None, pad_edge=False, caption=None if lines else "no budgets", caption_justify="left")
    for name in ("tenant", "level", "window"):
        table.add_column(name)
    for name in ("spent", "reserved", "limit", "used", "written off"):
        table.add_column(name, justify="right")
    for line in lines:
        unit, _, window = line.account.partition(".")

        def amount(value: int, unit: str = unit) -> str:
            return dollars(value) if unit == "usd" else f"{count(value)} tok"

        used = None if line.limit is None else (line.spent + line.reserved) / line.limit
        table.add_row(
            clean(line.tenant),
            clean(line.level),
            window,
            amount(line.spent),
            amount(line.reserved) if line.reserved else NOTHING,
            NOTHING if line.limit is None else amount(line.limit),
            NOTHING if used is None else Text(f"{used:.0%}", style=_style(used)),
            amount(line.written_off) if line.written_off else NOTHING,
        )
    return table


def _style(used: float) -> str:
    if used >= _OVER:
        return "bold red"
    return "yellow" if used >= _NEAR else ""
