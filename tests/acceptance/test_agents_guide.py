"""The guide to declared agents is one program, and it runs."""

import os
import subprocess
import sys
from pathlib import Path

from tests.unit.project.documents import ROOT, blocks

GUIDE = ROOT / "docs" / "guides" / "agents.md"


def test_the_guide_runs_from_top_to_bottom(tmp_path: Path) -> None:
    found = list(blocks("python", GUIDE))
    assert len(found) == GUIDE.read_text("utf-8").count("```python") > 7
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
