"""Every rule of the agent semantics has tests, of one process and of a fleet: `tests/conformance/rules.toml`."""

import ast
import importlib
import inspect
from functools import cache
from typing import Any

import pytest

from techrevati.agent.history import model_view
from techrevati.agent.loop import request, step
from techrevati.agent.loop.starting import prepare_run
from techrevati.fleet import define
from tests.conformance.rules import makes_a_world, table
from tests.unit.project.documents import ROOT

TABLE = table()
RULES = [pytest.param(rule, id=rule["id"]) for rule in TABLE["rule"]]
SECTIONS = ["2.1", "2.2", "2.4", "2.5", "2.6", "2.7", "3", "4.2", "4.3", "5.3", "5.4", "6", "7.1", "7.3", "7.4"]
SECTIONS += ["8.3", "9.3", "10", "13.3", "14.2", "14.3", "14.5"]
"""Those of the reference that have rules marked [C], but for the protocols of §15, which are encoders of §13."""


@cache
def named_in(folder: str) -> dict[str, str]:
    """Give the tests of a folder: name -> file."""
    found: dict[str, Any] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.setdefault(node.name, str(path.relative_to(ROOT)))
    return found


@cache
def run_again() -> dict[str, Any]:
    """Give the tests of one process that `tests/conformance` runs on its fleet: name -> function."""
    found: dict[str, Any] = {}
    for path in sorted((ROOT / "tests" / "conformance").glob("test_*.py")):
        module = importlib.import_module(f"tests.conformance.{path.stem}")
        found |= {
            name: value
            for name, value in vars(module).items()
            if name.startswith("test_") and inspect.isfunction(value)
        }
    return found


def on_a_fleet(name: str) -> bool:
    """Say whether a test runs on a fleet: in the conformance suite, or with worker processes of its own."""
    return name in run_again() or name in named_in("tests/acceptance")


def test_every_section_with_rules_has_some_in_the_table() -> None:
    held = {rule["id"].split()[0] for rule in TABLE["rule"]}
    assert sorted(held) == sorted(SECTIONS)
    assert len({rule["id"] for rule in TABLE["rule"]}) == len(TABLE["rule"])


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_test_of_one_process(rule: dict[str, Any]) -> None:
    known = named_in("tests/unit") | named_in("tests/property")
    assert rule["process"] and not [name for name in rule["process"] if name not in known]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_test_of_a_fleet_or_is_a_function_that_it_shares(rule: dict[str, Any]) -> None:
    if "pure" in rule:
        assert rule["pure"] in named_in("tests/unit/project")
        return
    fleet = [name for name in rule["fleet"] if name != "="]
    again = rule["process"] if rule["fleet"] == ["="] else []
    assert fleet or again
    assert not [name for name in (*fleet, *again) if not on_a_fleet(name)]


@pytest.mark.parametrize("module", TABLE["in_process_only"])
def test_what_one_process_only_can_be_asked_says_why_and_what_a_fleet_is_asked_instead(module: str) -> None:
    for name, said in TABLE["in_process_only"][module].items():
        assert name.partition("[")[0] in named_in("tests/unit"), name
        assert said["why"] and (on_a_fleet(said["instead"]) or said["instead"] in named_in("tests/unit/project")), name


def test_a_test_that_makes_no_world_is_not_taken_for_one_of_a_fleet() -> None:
    again = run_again()
    assert all(makes_a_world(test.__wrapped__) for test in again.values())
    assert "test_2_4_an_action_is_refused_outside_its_phase" not in again
    assert "test_2_2_eight_phases_come_in_their_order" in again


def test_the_fleet_takes_the_steps_of_the_loop_itself() -> None:
    """Rules that are functions need no second test: a fleet's turn calls these very objects."""
    ours: dict[str, Any] = vars(define)
    assert ours["step"] is step.step
    assert ours["prepare_run"] is prepare_run
    assert vars(request)["model_view"] is model_view
