"""Typed outputs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from techrevati.runtime import AgentFailureClass, AgentSession, InMemorySaver, UsageSnapshot
from techrevati.runtime.extras import SessionExtras
from techrevati.runtime.outputs import CallableOutput, JsonOutput, OutputRejectedError, RegexOutput

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 2},
        "score": {"anyOf": [{"type": "null"}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}]},
        "kind": {"const": "person"},
    },
    "required": ["name"],
    "additionalProperties": False,
    "title": "Person",
}


def plain(value: Any) -> Any:
    """Forget the type: hooks, replays and other tasks change what mypy thinks it knows."""
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"name": "Ada"},
        {"name": "Ada", "age": 36, "tags": ["a"], "score": None, "kind": "person"},
        {"name": "Ada", "age": 36.0, "score": 0.5},
    ],
)
def test_json_that_fits_is_parsed(value: dict[str, Any]) -> None:
    assert JsonOutput(PERSON).parse(json.dumps(value)) == value
    assert JsonOutput(PERSON).parse(value) is value
    assert JsonOutput(PERSON).parse(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        ([], "$", "expected object, got array"),
        ({}, "$", "'name' is missing"),
        ({"name": ""}, "$.name", "size 0, expected at least 1"),
        ({"name": "A" * 10}, "$.name", "size 10, expected at most 9"),
        ({"name": "ada"}, "$.name", "does not match"),
        ({"name": "A", "age": True}, "$.age", "expected integer, got boolean"),
        ({"name": "A", "age": 1.5}, "$.age", "expected integer, got number"),
        ({"name": "A", "age": -1}, "$.age", "-1 breaks minimum 0"),
        ({"name": "A", "age": 150}, "$.age", "breaks exclusiveMaximum"),
        ({"name": "A", "tags": []}, "$.tags", "size 0"),
        ({"name": "A", "tags": ["a"] * 3}, "$.tags", "size 3"),
        ({"name": "A", "tags": ["c"]}, "$.tags[0]", "none of"),
        ({"name": "A", "score": 0}, "$.score", "fits no alternative"),
        ({"name": "A", "score": 2}, "$.score", "breaks maximum 1"),
        ({"name": "A", "kind": "robot"}, "$.kind", "expected 'person'"),
        ({"name": "A", "more": 1}, "$", "'more' is not expected"),
        ({"name": object()}, "$.name", "expected string, got object"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(value: Any, path: str, words: str) -> None:
    with pytest.raises(OutputRejectedError) as caught:
        JsonOutput(PERSON).parse(value)
    assert caught.value.path == path
    assert words in caught.value.problem


def test_words_of_other_types_do_not_apply() -> None:
    loose = {"minLength": 3, "minimum": 3, "minItems": 3, "pattern": "x", "required": ["a"], "items": False,
             "properties": {"a": False}, "additionalProperties": {"type": "integer"}}  # fmt: skip
    for value in (None, True, {"a2": 1, "a": 0}):
        if isinstance(value, dict):
            with pytest.raises(OutputRejectedError, match="nothing is allowed"):
                JsonOutput(loose).parse(value)
        else:
            assert JsonOutput(loose).parse(value) is value
    with pytest.raises(OutputRejectedError, match=r"\$\.b"):
        JsonOutput({"additionalProperties": {"type": "integer"}}).parse({"b": "x"})
    assert JsonOutput({"properties": {"a": True}}).parse({"a": 1}) == {"a": 1}


def test_true_is_not_one() -> None:
    for schema in ({"const": 1}, {"enum": [1]}, {"const": [1]}, {"const": {"a": 1}}):
        shape = schema.get("const", 1)
        fits: Any = shape if shape is not None else 1
        assert JsonOutput(schema).parse(fits) == fits
    for schema, value in (({"const": 1}, True), ({"const": [1]}, [True]), ({"const": {"a": 1}}, {"a": True})):
        with pytest.raises(OutputRejectedError):
            JsonOutput(schema).parse(value)
    with pytest.raises(OutputRejectedError):
        JsonOutput({"const": [1]}).parse([1, 2])


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"oneOf": []}, "uses 'oneOf', which is not supported"),
        ({"type": "text"}, "unknown type 'text'"),
        ({"properties": {"a": {"not": {}}}}, r"schema at \$\.a uses 'not'"),
        ({"items": 3}, r"schema at \$\.items must be an object"),
        ({"anyOf": [{"type": "x"}]}, r"schema at \$\.anyOf\[0\]"),
    ],
)
def test_schemas_it_does_not_know_are_refused_when_given(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JsonOutput(schema)


def test_text_that_is_no_json() -> None:
    with pytest.raises(OutputRejectedError, match="not JSON"):
        JsonOutput({}).parse("{")


def test_patterns() -> None:
    spec = RegexOutput(r"\d+")
    assert spec.parse(" 42\n") == "42"
    for bad in ("42x", 42):
        with pytest.raises(OutputRejectedError):
            spec.parse(bad)
    assert spec == RegexOutput(r"\d+")


def test_callables() -> None:
    assert CallableOutput(int).parse("42") == 42
    with pytest.raises(OutputRejectedError, match="invalid literal"):
        CallableOutput(int).parse("x")

    def picky(value: Any) -> None:
        raise OutputRejectedError("mine", "$.here")

    with pytest.raises(OutputRejectedError) as caught:
        CallableOutput(picky).parse(1)
    assert caught.value.path == "$.here"
    with pytest.raises(ZeroDivisionError):
        CallableOutput(lambda _: 1 / 0).parse(1)


def test_a_session_checks_what_it_returns_and_records() -> None:
    saver = InMemorySaver()
    factory = AgentSession("r", "p", saver=saver)
    extras = SessionExtras(output=JsonOutput(PERSON))
    with pytest.raises(OutputRejectedError), factory.session(thread_id="t", extras=extras) as session:
        assert plain(session.run_turn(lambda: '{"name": "Ada"}', idempotency_key="a"))[0] == {"name": "Ada"}
        session.run_turn(lambda: "sorry", "m", UsageSnapshot(9), idempotency_key="b")
    assert session.events[-1].failure_class is AgentFailureClass.VALIDATION_ERROR
    assert "agent.recovery.attempted" not in [event.event.value for event in session.events]
    assert session.tracker.total_input_tokens == 9
    assert [record.state["result"] for record in saver.list("t")] == [{"name": "Ada"}]
    with factory.session(thread_id="t", extras=extras) as again:
        assert plain(again.run_turn(lambda: '{"name": "Bob"}', idempotency_key="b"))[0] == {"name": "Bob"}


async def test_async_sessions_check_too() -> None:
    extras = SessionExtras(output=RegexOutput("yes|no"))
    async with AgentSession("r", "p").asession(extras=extras) as session:
        assert (await session.arun_turn(lambda: asyncio.sleep(0, " yes ")))[0] == "yes"
        with pytest.raises(OutputRejectedError):
            await session.arun_turn(lambda: asyncio.sleep(0, "maybe"))
