"""What is installed is the package with its data, and nothing else."""

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.unit.project.documents import ROOT

PREFIX = "techrevati_workers-"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel and the source distribution, built without a network."""
    if importlib.util.find_spec("hatchling") is None:
        if os.environ.get("CI"):
            pytest.fail("hatchling is not installed; fix: pip install -e '.[dev]'")
        pytest.skip("needs hatchling: pip install -e '.[dev]'")
    place = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return place


def test_the_wheel_holds_every_file_of_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "techrevati").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == files
    rooms = {path.parent.name for path in (ROOT / "techrevati").glob("*/__init__.py")}
    assert {name.split("/")[1] for name in held if name.endswith("/py.typed")} == rooms
    assert "techrevati/store/lua/turn_commit.lua" in held


def test_the_wheel_says_what_it_is(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        info = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(info).decode()
        scripts = archive.read(info.replace("METADATA", "entry_points.txt")).decode()
    assert "Name: techrevati-workers\n" in metadata
    assert "Requires-Python: >=3.11\n" in metadata
    assert "License-Expression: MIT\n" in metadata
    assert "techrevati = techrevati.cli.main:main" in scripts


def test_the_source_distribution_holds_what_builds_the_wheel(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "techrevati/__init__.py"} <= names
    assert {name.split("/")[0] for name in names if "/" in name} == {"techrevati"}


def test_importing_the_runtime_imports_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import techrevati.runtime; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["techrevati"]


def test_importing_the_store_imports_no_queue() -> None:
    code = "import sys; import techrevati.store.sync, techrevati.store.aio; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"celery", "kombu", "typer"} & set(done.stdout.split())
