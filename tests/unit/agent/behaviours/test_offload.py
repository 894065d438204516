"""Large tool results as previews, and reading the rest."""

import json

import msgspec
import pytest

from techrevati.agent.actions import Phase, RequestView
from techrevati.agent.behaviours.offload import READ_TOOL, ArtefactOffload, OffloadPolicy, offload, preview, read_tool
from techrevati.agent.behaviours.tokens import message_tokens
from techrevati.agent.threads.message import Message, ToolCall
from techrevati.agent.tools import ToolError, ToolResult
from tests.unit.agent.behaviours.contexts import actions, call_ctx, ctx

POLICY = OffloadPolicy(threshold=100, head=30, tail=10, page=50)


def result(call_id: str, text: str) -> Message:
    return Message.tool(msgspec.json.encode(ToolResult.success("search", text).to_json()).decode(), call_id)


LARGE = result("c1", "0123456789" * 60 + "end")


def test_12_1_a_large_result_is_shown_as_a_preview_that_names_the_way_to_the_rest() -> None:
    shown = preview(POLICY, LARGE)
    record = json.loads(shown.content)
    assert (record["tool_name"], record["status"]) == ("search", "success")
    assert record["artefact"]["id"] == "c1"
    assert record["artefact"]["characters"] == len(LARGE.content)
    assert record["artefact"]["head"] == LARGE.content[:30]
    assert record["artefact"]["tail"] == LARGE.content[-10:]
    assert READ_TOOL in record["artefact"]["note"]
    assert (shown.id, shown.tool_call_id) == (LARGE.id, "c1")


def test_12_1_only_large_tool_results_are_replaced() -> None:
    messages = [Message.user("x" * 9000), Message.assistant("x" * 9000), result("c2", "short"), LARGE]
    shown = offload(POLICY, messages)
    assert list(shown[:3]) == messages[:3]
    assert message_tokens(shown[3]) < message_tokens(LARGE)


def test_12_1_the_threshold_is_2048_tokens_unless_told_otherwise() -> None:
    just_below, just_above = Message.tool("x" * 4 * 2043, "a"), Message.tool("x" * 4 * 2044, "b")
    one, other = offload(OffloadPolicy(), [just_below, just_above])
    assert one == just_below
    assert other != just_above


def test_12_1_a_result_that_is_no_json_is_previewed_too() -> None:
    plain = Message.tool("x" * 4000, "c1")
    assert json.loads(preview(POLICY, plain).content)["artefact"]["characters"] == 4000
    listed = Message.tool(json.dumps(["x" * 4000]), "c1")
    assert json.loads(preview(POLICY, listed).content)["artefact"]["id"] == "c1"


async def test_12_1_reading_page_by_page_gives_the_whole_result() -> None:
    tool, text, offset = read_tool(POLICY), "", 0
    while True:
        effect = await tool.run({"id": "c1", "offset": offset}, call_ctx(READ_TOOL, [Message.user("x"), LARGE]))
        text += effect.result.data["text"]
        if "next_offset" not in effect.result.data:
            break
        offset = effect.result.data["next_offset"]
    assert text == LARGE.content


async def test_12_1_an_unknown_artefact_or_offset_is_an_error_the_model_can_act_on() -> None:
    with pytest.raises(ToolError, match="no result with the id 'c9'"):
        await read_tool().run({"id": "c9"}, call_ctx(READ_TOOL, [LARGE]))
    with pytest.raises(ToolError, match="use 0 or more"):
        await read_tool().run({"id": "c1", "offset": -1}, call_ctx(READ_TOOL, [LARGE]))
    beyond = await read_tool(POLICY).run({"id": "c1", "offset": 10**9}, call_ctx(READ_TOOL, [LARGE]))
    assert beyond.result.data["text"] == ""


def test_12_1_what_was_read_back_is_shown_as_it_is() -> None:
    call = Message.assistant("", (ToolCall("r1", READ_TOOL, {"id": "c1"}),))
    page = result("r1", "y" * 900)
    assert offload(POLICY, [call, page]) == (call, page)


async def test_12_1_nothing_is_hidden_from_a_model_that_could_not_read_it() -> None:
    behaviour = ArtefactOffload(POLICY)
    (action,) = actions(await behaviour.before_inference(ctx(Phase.BEFORE_INFERENCE)), Phase.BEFORE_INFERENCE)
    assert action.transform(RequestView((LARGE,), ())).messages == (LARGE,)
    offered = (behaviour.tools[0].descriptor,)
    assert action.transform(RequestView((LARGE,), offered)).messages == (preview(POLICY, LARGE),)
