"""The documents keep to what exists: commands parse, Python type-checks, links lead somewhere, names are real."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from techrevati.fleet.settings import Settings
from tests.unit.project.commands import Refused, check, commands, make_targets
from tests.unit.project.documents import ROOT, Block, Link, anchors, blocks, documents, links, name_of
from tests.unit.project.generated import OPERATING, PARTS, Part

VARIABLE = re.compile(r"TECHREVATI_[A-Z_]*[A-Z]")
DOCUMENTS = [pytest.param(path, id=name_of(path)) for path in documents()]


def variables_in(*folders: str) -> set[str]:
    sources = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {name for path in sources for name in VARIABLE.findall(path.read_text("utf-8"))}


def settings() -> set[str]:
    return {f"TECHREVATI_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("block", [pytest.param(b, id=f"{b.document}:{b.line}") for b in blocks("sh")])
def test_every_command_line_parses_with_the_real_program(block: Block) -> None:
    for words in commands(block.code):
        check(words)


@pytest.mark.parametrize(
    "line",
    [
        "techrevati nonsense",
        "techrevati runs --fleet newsroom --stauts waiting",
        "techrevati worker examples.newsroom:fleet",
        "techrevati demo examples/brief.md --words few",
        "celery -A workers.writer worker --concurency 2",
        "celery -A workers.writer worker -P nonsense",
        "python -m tests.benchmarks.nonsense",
        "make nonsense",
        "nonsense",
    ],
)
def test_a_command_line_that_would_fail_is_noticed(line: str) -> None:
    with pytest.raises(Refused):
        check(line.split())


def test_python_blocks_type_check_against_the_package(tmp_path: Path) -> None:
    files = []
    for path in documents():
        if path.name == "runtime.md":  # its blocks are run, one by one, by tests/acceptance/test_runtime_guide.py
            continue
        if found := list(blocks("python", path)):
            module = tmp_path / f"{re.sub(r'[^a-z]', '_', name_of(path).lower())}.py"
            module.write_text("\n\n".join(f"# line {block.line}\n{block.code}" for block in found), "utf-8")
            files.append(str(module))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), *files]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readmes_agent_declares_itself() -> None:
    names: dict[str, object] = {}
    first = next(blocks("python", ROOT / "README.md"))
    exec(compile(first.code, "README.md", "exec"), names)
    assert getattr(names["fleet"], "roles", None) == ["editor", "writer"]


def test_the_readme_begins_with_setting_up_and_testing() -> None:
    demo, tests = (block.code for block in list(blocks("sh", ROOT / "README.md"))[:2])
    assert [" ".join(words[-2:]) for words in commands(demo)] == [
        "venv .venv",
        "-e .[embedded]",
        "demo examples/brief.md",
    ]
    assert [" ".join(words[-2:]) for words in commands(tests)] == ["-e .[dev]", "-n 3"]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path):
        if not link.target.startswith(("http://", "https://")):
            target, _, anchor = link.target.partition("#")
            place = (path.parent / target).resolve() if target else path
            assert place.exists(), f"{link.document} links to {link.target}"
            assert not anchor or anchor in anchors(place), f"{link.document} links to {link.target}"


PROOFS = [link for link in links() if link.text.startswith("`test_")]


@pytest.mark.parametrize("link", [pytest.param(one, id=one.text.strip("`")) for one in PROOFS])
def test_a_test_that_is_named_as_proof_exists(link: Link) -> None:
    source = ((ROOT / link.document).parent / link.target).read_text("utf-8")
    assert re.search(rf"^(async )?def {link.text.strip('`')}\(", source, re.MULTILINE), link


def test_every_guarantee_names_a_proof() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.partition("## Guarantees")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 5
    for row in rows:
        assert "[`test_" in row.split("|")[2], row


@pytest.mark.parametrize("path", DOCUMENTS)
def test_variables_that_a_document_names_are_read_by_the_code(path: Path) -> None:
    known = settings() | variables_in("techrevati", "examples", "workers")
    assert set(VARIABLE.findall(path.read_text("utf-8"))) <= known


@pytest.mark.parametrize("part", PARTS, ids=lambda part: name_of(part.path))
def test_what_is_generated_is_that_of_today(part: Part) -> None:
    text = part.path.read_text("utf-8")
    assert text == part.into(text), "fix: make docs"


def test_every_variable_the_code_reads_is_documented() -> None:
    read = variables_in("techrevati", "examples", "workers")
    assert read <= set(VARIABLE.findall(OPERATING.read_text("utf-8")))


def test_names_of_classes_and_functions_with_a_path_exist() -> None:
    """`techrevati.fleet.Fleet` in a document is something that can be imported."""
    for path in documents():
        for dotted in set(re.findall(r"`(techrevati(?:\.\w+)+)`", path.read_text("utf-8"))):
            module, _, name = dotted.rpartition(".")
            found = importlib.import_module(module)
            assert hasattr(found, name) or importlib.util.find_spec(dotted), f"{name_of(path)}: {dotted}"


def test_the_makefile_runs_what_exists() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module), module
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == make_targets()


def test_ci_names_no_host_and_no_place_of_one_machine() -> None:
    text = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "://" not in text
    allowed = {"/tmp", "/proc", "/dev/null", "/bin/sh", "/usr/bin/env"}
    found = set(re.findall(r"(?<![\w\"$}.)*])(/[a-z]+(?:/[a-z]+)*)", text))
    assert found <= allowed, found - allowed
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
