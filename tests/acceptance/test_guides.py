"""The first examples a newcomer copies run as they are written, on real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from techrevati.cli.local import LocalFleet
from tests.unit.project.documents import ROOT, blocks


@pytest.mark.parametrize(
    ("document", "name", "roles", "said"),
    [
        ("README.md", "hello", ["editor", "writer"], "A FEW WORDS ABOUT TIDES."),
        ("docs/guides/getting-started.md", "counter", ["counter"], "{'counted': 5}"),
    ],
)
def test_guide_runs_as_it_is_written(
    document: str, name: str, roles: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [block.code for block in blocks("python", ROOT / document)]
    agents = next(code for code in shown if "@fleet.agent(" in code)
    clients = [code for code in shown if "Client" in code]
    (tmp_path / f"{name}.py").write_text(agents, "utf-8")
    monkeypatch.delenv("TECHREVATI_REDIS_URL", raising=False)
    with LocalFleet(f"{name}:fleet", name, roles, directory=tmp_path) as local:
        for code in clients:
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", code],
                env={**os.environ, "TECHREVATI_REDIS_URL": local.url},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[-1].endswith(said)
            assert done.stderr == ""
