"""The guides to declared agents and to behaviours are one program each, and they run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.project.documents import ROOT, blocks


@pytest.mark.parametrize("name", ["agents", "agent-behaviours"])
def test_the_guide_runs_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    guide = ROOT / "docs" / "guides" / f"{name}.md"
    found = list(blocks("python", guide))
    assert len(found) == guide.read_text("utf-8").count("```python") > 7
    lines: list[str] = []
    for block in found:  # at their own lines, so that a failure names the guide's
        lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
    program = tmp_path / "guide.py"
    program.write_text("\n".join(lines), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
