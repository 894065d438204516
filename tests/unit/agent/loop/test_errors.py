"""Errors of the agent layer cross a queue and read the same on both sides."""

import inspect
import pickle
from typing import Any

import pytest

from techrevati.agent import actions, errors, lifecycle, model, tools
from techrevati.agent.loop import phases, step, tool_runs
from techrevati.runtime.errors import TechrevatiError

FILL: dict[str, Any] = {
    "known": ("a", "b"),
    "error_class": model.ErrorClass.TIMEOUT,
    "received": model.Received("x", True),
    "retry_after_ms": 5,
}


def every_error() -> list[type[TechrevatiError]]:
    return [
        found
        for module in (actions, errors, lifecycle, model, phases, step, tool_runs, tools)
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, TechrevatiError) and found.__module__ == module.__name__ and "__init__" in found.__dict__
    ]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_errors_survive_pickling_and_name_their_fields(error: type[TechrevatiError]) -> None:
    names = list(inspect.signature(error.__init__).parameters)[1:]
    raised = error(*(FILL.get(name, name) for name in names))
    again = pickle.loads(pickle.dumps(raised))
    assert type(again) is error and str(again) == str(raised) and vars(again) == vars(raised)
    assert len(str(raised)) > 5


def test_there_are_errors_to_look_at() -> None:
    assert len(every_error()) > 10
