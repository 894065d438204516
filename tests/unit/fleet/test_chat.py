"""One conversation, as each provider wants it."""

from typing import Any

from techrevati.fleet.chat import CACHED, for_anthropic, for_openai, marked_for_cache, options_for_anthropic

CALL = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"q": "tides"}'}}
OTHER = {"id": "t2", "type": "function", "function": {"name": "look", "arguments": {"q": "moon"}}}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "tides?"},
    {"role": "assistant", "content": "I look.", "tool_calls": [CALL, OTHER], "thinking": [{"type": "thinking"}]},
    {"role": "tool", "tool_call_id": "t1", "content": "high at noon"},
    {"role": "tool", "tool_call_id": "t2", "content": "no moon", "is_error": True},
    {"role": "user", "content": "and now?"},
]


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_anthropic_gets_blocks_with_results_first_and_one_message_per_side() -> None:
    system, messages = for_anthropic(TALK)
    assert system == [text("Be brief.")]
    assert messages == [
        {"role": "user", "content": [text("tides?")]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking"},
                text("I look."),
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"q": "tides"}},
                {"type": "tool_use", "id": "t2", "name": "look", "input": {"q": "moon"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [text("high at noon")]},
                {"type": "tool_result", "tool_use_id": "t2", "content": [text("no moon")], "is_error": True},
                text("and now?"),
            ],
        },
    ]


def test_a_prompt_is_cached_up_to_the_end_of_its_instructions_and_of_its_last_message() -> None:
    system, messages = marked_for_cache(*for_anthropic(TALK))
    assert system == [{**text("Be brief."), **CACHED}]
    marked = [block for message in messages for block in message["content"] if "cache_control" in block]
    assert marked == [{**text("and now?"), **CACHED}]
    assert marked_for_cache([], []) == ([], [])


def test_a_steering_message_between_calls_and_results_does_not_part_them() -> None:
    talk = [TALK[2], {"role": "user", "content": "hurry"}, TALK[3]]
    _, messages = for_anthropic(talk)
    assert [block["type"] for block in messages[1]["content"]] == ["tool_result", "text"]


def test_openai_gets_only_what_it_knows_and_arguments_as_text() -> None:
    sent = for_openai([*TALK, {"role": "assistant", "content": "so", "tool_calls": [], "phase": "x"}])
    assert "thinking" not in sent[2] and "is_error" not in sent[4]
    assert sent[2]["tool_calls"][1]["function"]["arguments"] == '{"q": "moon"}'
    assert sent[-1] == {"role": "assistant", "content": "so"}
    assert TALK[2]["tool_calls"][1]["function"]["arguments"] == {"q": "moon"}, "what was given stays as it was"


def test_empty_text_images_and_garbled_arguments() -> None:
    cut = {"id": "t", "function": {"name": "look", "arguments": '{"q": "ti'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    link = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    _, messages = for_anthropic(
        [
            {"role": "user", "content": [text(""), image, link]},
            {"role": "assistant", "content": "", "tool_calls": [cut]},
            {"role": "assistant", "content": ""},
        ]
    )
    assert messages == [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {"unreadable": '{"q": "ti'}}],
        },
    ]


def test_options_take_anthropics_names() -> None:
    tool = {"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}}
    given = {
        "max_completion_tokens": 10,
        "stop": "END",
        "tools": [tool, {"name": "own", "input_schema": {}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
    }
    assert options_for_anthropic(given) == {
        "max_tokens": 10,
        "stop_sequences": ["END"],
        "tools": [
            {"name": "look", "description": "d", "input_schema": {"type": "object"}},
            {"name": "own", "input_schema": {}},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "temperature": 0,
    }
    assert options_for_anthropic({"tools": []}) == {"max_tokens": 4096}
    named = {"type": "function", "function": {"name": "look"}}
    assert options_for_anthropic({"tool_choice": named})["tool_choice"] == {"type": "tool", "name": "look"}
