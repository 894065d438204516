"""Parse command lines with the real command-line interfaces, without running them.

techrevati … ──typer──▶ ok        celery -A MODULE … ──celery, click──▶ ok
"""

import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from celery.bin.base import CLIContext
from celery.bin.celery import celery

from techrevati.cli.main import app
from techrevati.fleet.fleet import Fleet
from tests.unit.project.documents import ROOT

OTHERS = frozenset({"export", "pip", "mkdir", "kubectl", "docker", "redis-cli"})
"""Programs whose arguments are theirs to judge."""


class Refused(AssertionError):
    """A command line that its program would not take."""


def commands(script: str) -> Iterator[list[str]]:
    """Give the simple commands of a shell script, without variables set for one of them."""
    for line in script.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\||;", line):
            words = shlex.split(part, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                yield words


def check(words: Sequence[str]) -> None:
    """Have the program named first parse the rest.

    Raises:
        Refused: it would not take them, or it is not known here.
    """
    program, arguments = words[0].removeprefix(".venv/bin/"), list(words[1:])
    try:
        if program == "techrevati":
            check_techrevati(arguments)
        elif program == "celery":
            check_celery(arguments)
        elif program in ("python", "python3"):
            check_python(arguments)
        elif program == "make":
            check_make(arguments)
        elif program == ".ci/run":
            assert (ROOT / program).is_file()
        elif program not in OTHERS:
            raise Refused(f"no way to check {program!r}")
    except Exception as error:  # click's, and that of the click which typer carries
        if not hasattr(error, "format_message"):
            raise
        raise Refused(f"{shlex.join(words)}: {error.format_message()}") from error


def check_techrevati(arguments: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    context, rest = _parse_group(group, "techrevati", arguments)
    name, command, rest = group.resolve_command(context, rest)
    parsed = command.make_context(name, rest, parent=context).params
    if target := parsed.get("target"):
        module, _, attribute = str(target).partition(":")
        if importlib.util.find_spec(module) is not None:  # one that the reader writes is not here
            fleet = getattr(importlib.import_module(module), attribute)
            assert isinstance(fleet, Fleet)
            if role := parsed.get("role"):
                fleet.celery_for(role)


def check_celery(arguments: list[str]) -> None:
    context, rest = _parse_group(celery, "celery", arguments)
    module = importlib.import_module(context.params["app"])
    context.obj = CLIContext(app=module.app, no_color=True, workdir=None)
    name, command, rest = celery.resolve_command(context, rest)
    command.make_context(name, rest, parent=context)


def check_python(arguments: list[str]) -> None:
    if arguments[:1] != ["-m"] or importlib.util.find_spec(arguments[1]) is None:
        raise Refused(f"python {shlex.join(arguments)}: no such module")


def check_make(arguments: list[str]) -> None:
    unknown = set(arguments) - make_targets()
    if unknown:
        raise Refused(f"make: no target {', '.join(sorted(unknown))}")


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def _parse_group(group: Any, name: str, arguments: list[str]) -> tuple[Any, list[str]]:
    context = group.make_context(name, list(arguments))
    return context, [*context._protected_args, *context.args]
