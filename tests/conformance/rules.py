"""The rules' own tests, once more: the same functions, in a world that is a fleet.

globals().update(on_the_fleet(test_02_behaviours))       # but for what rules.toml says of that module
"""

import inspect
import tomllib
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from tests.conformance.service import RuleFleet
from tests.conformance.world import FleetWorld


def table() -> dict[str, Any]:
    """Read the rules, and what one process only can be asked."""
    return tomllib.loads((Path(__file__).parent / "rules.toml").read_text("utf-8"))


def on_the_fleet(module: ModuleType) -> dict[str, Any]:
    """Give the tests of `module` that make a world, to be run with the fleet's, and its fixtures."""
    in_process_only = table()["in_process_only"].get(module.__name__.rpartition(".")[2], {})
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("test_") and inspect.iscoroutinefunction(value) and makes_a_world(value):
            if name not in in_process_only:
                found[name] = _held(module, value, in_process_only)
        elif type(value).__name__ == "FixtureFunctionDefinition":
            found[name] = value
    unknown = {name.partition("[")[0] for name in in_process_only} - set(vars(module))
    assert not unknown, f"{module.__name__} has no {sorted(unknown)}"
    return found


def makes_a_world(test: Any) -> bool:
    """Say whether a test is about runs; the others ask pure functions, which a fleet shares as they are."""
    names, called = set[str](), [test]
    while called:
        function = called.pop()
        fresh = _names(function.__code__) - names
        names |= fresh
        called += [one for name in fresh if inspect.isfunction(one := function.__globals__.get(name))]
    return "World" in names


def _names(code: CodeType) -> set[str]:
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*(_names(one) for one in inner))


def _held(module: ModuleType, test: Callable[..., Any], in_process_only: Mapping[str, Any]) -> Callable[..., None]:
    signature = inspect.signature(test)

    @wraps(test)
    def held(rule_fleet: RuleFleet, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
        worlds: list[FleetWorld] = []

        def world(*args: Any, **options: Any) -> FleetWorld:
            worlds.append(FleetWorld(rule_fleet, *args, **options))
            return worlds[-1]

        monkeypatch.setattr(module, "World", world)

        async def run() -> None:
            try:
                await test(**given)
            finally:
                for one in worlds:
                    await one.close()

        rule_fleet.run(run())
        assert worlds, f"{test.__name__} made no world: it proves nothing of a fleet"

    own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("rule_fleet", "monkeypatch")]
    asked = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
    held.__signature__ = signature.replace(parameters=[*asked, *own])  # type: ignore[attr-defined]
    marks = [_without(mark, test.__name__, in_process_only) for mark in getattr(test, "pytestmark", [])]
    held.pytestmark = marks  # type: ignore[attr-defined]
    return held


def _without(mark: pytest.Mark, name: str, in_process_only: Mapping[str, Any]) -> pytest.Mark:
    """Leave out the parameters of a test that a fleet cannot be asked."""
    if mark.name != "parametrize":
        return mark
    names, values, *more = mark.args
    kept = [value for value in values if f"{name}[{_id(value)}]" not in in_process_only]
    return pytest.mark.parametrize(names, kept, *more, **mark.kwargs).mark


def _id(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
