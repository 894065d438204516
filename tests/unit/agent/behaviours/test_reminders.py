"""Reminders: shown once before an answer, or as rules ask."""

from typing import Any

import pytest

from techrevati.agent.actions import AddContextMessage, AddSessionContext, Phase, Target
from techrevati.agent.behaviours.reminders import (
    AddReminder,
    BadReminderRule,
    ClearReminders,
    ReminderContext,
    ReminderRule,
    Reminders,
    RemoveReminder,
)
from techrevati.agent.model import InferenceError, StreamResult
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.tools import ToolResult, ToolStatus
from tests.unit.agent.behaviours.contexts import actions, ctx, only, reduced


def after(document: Any, *found: Any) -> Any:
    return reduced(document, [AnyStateAction.new(Reminders, each) for each in found])


async def inference(behaviour: ReminderContext, document: Any, *, fails: bool = False) -> tuple[Any, list[str]]:
    """Go through one inference; gives the document after it and what was shown."""
    found = actions(
        await behaviour.before_inference(ctx(Phase.BEFORE_INFERENCE, document=document)), Phase.BEFORE_INFERENCE
    )
    shown = [action.text for action in only(found, AddSessionContext)]
    shown += [action.message.content for action in only(found, AddContextMessage)]
    document = reduced(document, found)
    outcome: Any = {"inference_error": InferenceError("no")} if fails else {"response": StreamResult("ok")}
    seen = ctx(Phase.AFTER_INFERENCE, document=document, **outcome)
    return reduced(document, actions(await behaviour.after_inference(seen), Phase.AFTER_INFERENCE)), shown


async def result(behaviour: ReminderContext, document: Any, tool: str, given: ToolResult) -> Any:
    seen = ctx(Phase.AFTER_TOOL_EXECUTE, document=document, tool_name=tool, tool_call_id="c", tool_result=given)
    return reduced(document, actions(await behaviour.after_tool_execute(seen), Phase.AFTER_TOOL_EXECUTE))


async def test_12_2_a_reminder_is_session_context_and_is_shown_once() -> None:
    behaviour = ReminderContext()
    document = after({}, AddReminder("save your work"), AddReminder("save your work"), AddReminder("be brief"))
    assert document["reminders"]["items"] == ["save your work", "be brief"]
    document, shown = await inference(behaviour, document)
    assert shown == ["Reminder: save your work", "Reminder: be brief"]
    assert (await inference(behaviour, document))[1] == []


async def test_12_2_reminders_can_be_removed_and_cleared() -> None:
    document = after({}, AddReminder("a"), AddReminder("b"), AddReminder("  "), RemoveReminder("a"))
    assert document["reminders"]["items"] == ["b"]
    assert after(document, ClearReminders())["reminders"]["items"] == []


async def test_12_2_persistent_reminders_stay_until_they_are_removed() -> None:
    behaviour = ReminderContext(persist=True)
    document = after({}, AddReminder("a"))
    for _ in range(3):
        document, shown = await inference(behaviour, document)
        assert shown == ["Reminder: a"]
    assert (await inference(behaviour, after(document, RemoveReminder("a"))))[1] == []


async def test_12_2_what_a_failed_call_should_have_shown_is_shown_again() -> None:
    behaviour = ReminderContext()
    document, _ = await inference(behaviour, after({}, AddReminder("a")), fails=True)
    document, shown = await inference(behaviour, document)
    assert shown == ["Reminder: a"]
    assert (await inference(behaviour, document))[1] == []


async def test_12_2_a_reminder_added_while_the_model_answers_is_not_lost() -> None:
    behaviour = ReminderContext()
    found = await behaviour.before_inference(ctx(Phase.BEFORE_INFERENCE, document=after({}, AddReminder("a"))))
    document = after(reduced(after({}, AddReminder("a")), found), AddReminder("b"))
    seen = ctx(Phase.AFTER_INFERENCE, document=document, response=StreamResult("ok"))
    document = reduced(document, await behaviour.after_inference(seen))
    assert document["reminders"]["items"] == ["b"]


RULE = ReminderRule(id="tests", tool="shell*", output=r"\d+ failed", text="fix the tests first", cooldown_turns=3)


async def test_12_2_a_rule_speaks_when_tool_and_output_match() -> None:
    behaviour = ReminderContext([RULE])
    document = await result(behaviour, {}, "shell_run", ToolResult.success("shell_run", {"out": "2 failed"}))
    found = await behaviour.before_inference(ctx(Phase.BEFORE_INFERENCE, document=document))
    (context,) = only(found, AddContextMessage)
    assert context.message.content == "Reminder: fix the tests first"
    assert (context.message.key, context.message.cooldown_turns) == ("reminder:tests", 3)
    assert context.message.target is Target.SUFFIX_SYSTEM
    document, _ = await inference(behaviour, document)
    assert (await inference(behaviour, document))[1] == [], "once for each time it fired"


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("mail", ToolResult.success("mail", "2 failed")),
        ("shell", ToolResult.success("shell", "all passed")),
    ],
)
async def test_12_2_a_rule_is_silent_otherwise(tool: str, given: ToolResult) -> None:
    assert await result(ReminderContext([RULE]), {}, tool, given) == {}


async def test_12_2_a_rule_may_ask_for_a_status() -> None:
    behaviour = ReminderContext([ReminderRule(id="e", status=ToolStatus.ERROR, text="read the error")])
    assert await result(behaviour, {}, "t", ToolResult.success("t")) == {}
    document = await result(behaviour, {}, "t", ToolResult.error("t", "no"))
    document = await result(behaviour, document, "t", ToolResult.error("t", "no"))
    assert document["reminders"]["fired"] == ["e"]


async def test_12_2_a_rule_that_is_gone_after_a_deploy_is_forgotten() -> None:
    document, shown = await inference(ReminderContext(), {"reminders": {"fired": ["old"]}})
    assert shown == []
    assert document["reminders"]["fired"] == []


@pytest.mark.parametrize("fields", [{"id": ""}, {"text": " "}, {"output": "["}])
def test_12_2_a_rule_that_could_never_work_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(BadReminderRule):
        ReminderRule(**{"id": "a", "text": "b", **fields})  # type: ignore[arg-type]  # a test writes strings


def test_12_2_two_rules_of_one_id_are_refused() -> None:
    with pytest.raises(BadReminderRule, match="used twice"):
        ReminderContext([RULE, RULE])
