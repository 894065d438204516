"""Every error of the behaviours survives a queue, names the thing, and says what to do."""

import pickle

import pytest

from techrevati.agent.behaviours.context_window import BadWindow
from techrevati.agent.behaviours.handoff import BadPersona
from techrevati.agent.behaviours.mcp.faults import CallInDoubt, McpUnavailable
from techrevati.agent.behaviours.mcp.names import DuplicateTool
from techrevati.agent.behaviours.permissions import BadRule
from techrevati.agent.behaviours.reminders import BadReminderRule
from techrevati.agent.behaviours.skills import BadResource, InvalidSkill
from techrevati.runtime.errors import TechrevatiError

ERRORS: list[TechrevatiError] = [
    BadWindow("max_context_tokens", 0, "more than max_output_tokens"),
    BadPersona("clerk", "the name is used twice; fix: rename one"),
    McpUnavailable("desk", "no answer in time"),
    CallInDoubt("desk", "pay"),
    DuplicateTool("mcp__s__a", "s", ("a", "a.")),
    BadRule("permit", "it does not read so"),
    BadReminderRule("red", "an id is used twice; fix: rename one"),
    BadResource("../x", "leads out of the skill's directory"),
    InvalidSkill("x/SKILL.md", "no front matter"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_of_behaviours_survive_pickling_and_name_the_thing(error: TechrevatiError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)
    assert str(error.args[0]) in str(error)
