"""Every example of the runtime guide runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from techrevati.runtime import usage_tracking

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "runtime.md"
TEXT = GUIDE.read_text("utf-8")
BLOCKS = [
    (TEXT.count("\n", 0, match.start(1)) + 1, match.group(1))
    for match in re.finditer(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
]


@pytest.fixture(autouse=True)
def own_prices() -> Iterator[None]:
    before = dict(usage_tracking.PRICING_TABLE)
    yield
    usage_tracking.PRICING_TABLE.clear()
    usage_tracking.PRICING_TABLE.update(before)


@pytest.mark.parametrize(("line", "code"), BLOCKS, ids=[f"line-{line}" for line, _ in BLOCKS])
def test_the_example_runs(line: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "\n" * (line - 1) + code  # so that a failure names the guide's line
    exec(compile(source, str(GUIDE), "exec"), {"__name__": "guide"})
    assert list(tmp_path.iterdir()) == []


def test_no_block_is_missed() -> None:
    assert len(BLOCKS) == TEXT.count("```python") > 20
