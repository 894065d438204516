"""The guide to models runs as it is written, on real processes, against a server that speaks both providers' APIs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from techrevati.cli.local import LocalFleet
from tests.model_server import model_server
from tests.unit.project.documents import ROOT, blocks


def test_the_guide_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agents, client, *more = (block.code for block in blocks("python", ROOT / "docs/guides/models.md"))
    (tmp_path / "desk.py").write_text("\n".join([agents, *more]), "utf-8")
    monkeypatch.delenv("TECHREVATI_REDIS_URL", raising=False)
    with model_server() as server:
        for name, value in {
            "OPENAI_API_KEY": "k",
            "ANTHROPIC_API_KEY": "k",
            "OPENAI_BASE_URL": f"{server.url}/v1",
            "ANTHROPIC_BASE_URL": server.url,
        }.items():
            monkeypatch.setenv(name, value)
        with LocalFleet("desk:fleet", "desk", ["helper"], directory=tmp_path) as local:
            env = {**os.environ, "TECHREVATI_REDIS_URL": local.url}
            done = run([sys.executable, "-W", "error", "-c", client], env)
            assert done.stdout == "The tide turns.\n"
            gates = run([sys.executable, "-m", "techrevati.cli", "gates", "--fleet", "desk"], env).stdout
            assert re.search(r"openai:gpt-5-mini +closed .* 0/64 .*\n +rpm (499|500)/500", gates), gates
            budgets = run([sys.executable, "-m", "techrevati.cli", "budgets", "--fleet", "desk"], env).stdout
            assert "acme" in budgets and "$20.00" in budgets
        assert [body["model"] for body in server.seen] == ["gpt-5-mini"] * 2
        assert server.seen[1]["messages"][-1]["role"] == "tool"


def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done
