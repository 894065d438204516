"""What a benchmark says: spreads, ratios per round, a table, a JSON file.

samples ──▶ Spread (median, min–max) ──▶ table on stdout
                                    └──▶ JSON beside it
"""

import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("techrevati-workers", "celery", "kombu", "redis", "hiredis", "taskiq", "taskiq-redis")


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ends of some figures."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int = 0) -> str:
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}–{self.high:,.{digits}f})"


@dataclass(frozen=True, slots=True)
class Bar:
    """A claim the benchmark holds itself to."""

    claim: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def show(self) -> str:
        sign = "≥" if self.at_least else "≤"
        verdict = "PASS" if self.holds else "FAIL"
        return f"{verdict}  {self.claim}: {self.value:.2f} (bar {sign} {self.bound:.2f})"

    def asdict(self) -> dict[str, Any]:
        return {"claim": self.claim, "value": self.value, "bound": self.bound, "holds": self.holds}


def pairwise(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ratios of the figures of the same round: noise that lasts longer than a round cancels."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], q: float) -> float:
    """The least value that a share `q` (0–1] of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the figures to the right."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def aligned(line: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join([first, *rest]).rstrip()

    return "\n".join([aligned(lines[0]), "  ".join("-" * width for width in widths), *map(aligned, lines[1:])])


def machine(server: str) -> dict[str, str]:
    """Where and with what this was measured; `server` is the version of the Redis that was used."""
    facts = {
        "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {_cpu_model()}",
        "load before": "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "redis-server": server,
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def show_machine(facts: Mapping[str, str]) -> str:
    return "\n".join(f"{name:>18}  {value}" for name, value in facts.items())


def write_json(path: Path | None, record: Mapping[str, Any]) -> None:
    """Write the whole record beside the table, if a path was given."""
    if path is not None:
        path.write_text(json.dumps(record, indent=2, default=str, ensure_ascii=False) + "\n", "utf-8")


def finish(bars: Sequence[Bar]) -> None:
    """Print the bars and leave with 1 if one does not hold."""
    for bar in bars:
        print(bar.show())
    sys.exit(0 if all(bar.holds for bar in bars) else 1)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
