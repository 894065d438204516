"""What the three agents decide; that they run is for the acceptance tests."""

import importlib
from typing import Any

import pytest

from examples.extract import count_words, sections
from examples.newsroom import advice, better, build, chat, printed, reading, refuse
from examples.quality import Review


def test_a_document_is_read_in_parts_of_whole_sections() -> None:
    text = "# T\n\n" + "\n\n".join(f"## H{n}\n\n" + "word " * 60 + "end." for n in range(6))
    parts = reading(text, words=120)
    assert len(parts) == 3
    assert all(part.startswith("#") and count_words(part) <= 200 for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_document_without_a_title_gets_one() -> None:
    assert reading("Only a line.", words=400)[0].startswith("# Only a line.\n")
    assert reading("## Tides\n\nA line.", words=400)[0].startswith("# Tides\n")


def test_one_long_section_is_cut_between_paragraphs() -> None:
    parts = reading("# T\n\n" + "\n\n".join("word " * 99 + "end." for _ in range(9)), words=100)
    assert len(parts) == 3 and all(sections(part) for part in parts)


def test_a_comment_in_code_is_no_heading_to_cut_at() -> None:
    code = "```\n# no heading\n```\n"
    assert len(reading("# T\n\n" + "word " * 50 + "end.\n" + code + "More.", words=20)) == 1


@pytest.mark.parametrize("given", [None, {}, {"document": 3}, {"document": "# T"}, {"document": "A b.", "words": 5}])
def test_bad_input_is_refused_with_the_fix(given: Any) -> None:
    assert "fix: start(" in (refuse(given) or "")


def test_good_input_is_not_refused() -> None:
    assert refuse({"document": "A fact.", "words": 100}) is None and refuse({"document": "A fact."}) is None


def test_messages_are_plain_chat_with_the_parts_in_tags() -> None:
    assert chat("TASK: write", notes="- a", draft="") == [
        {"role": "system", "content": "TASK: write"},
        {"role": "user", "content": "<notes>\n- a\n</notes>"},
    ]


def test_only_remarks_that_can_be_acted_on_reach_the_writer() -> None:
    text = "Nice work!\n- consider: The dam.\n - redundant: The sea.\n- fine: nothing to add"
    assert advice(text) == ["consider: The dam.", "redundant: The sea."]


def test_the_best_draft_is_kept() -> None:
    first = better(None, "a", Review(0.9, ("missing: x",)), 1)
    assert better(first, "b", Review(0.8, ("missing: x",)), 2) == first
    assert better(first, "b", Review(0.9, ("missing: x",)), 2)["draft"] == "b"
    assert better(first, "b", Review(0.7, ()), 2)["draft"] == "b"


def test_the_output_says_when_the_gate_never_passed() -> None:
    best = {"draft": "# T\n\nOne fact.", "score": 0.9, "problems": ["missing: x"], "round": 3}
    output = printed(best, rounds=4)
    assert (output["accepted"], output["words"], output["article"]) == (False, 2, best["draft"])
    assert output["remark"] == "the gate did not pass in 4 rounds; this is draft 3, problems left: 1"
    assert printed(best | {"problems": []}, rounds=2)["remark"] == ""


def test_the_newsroom_can_be_built_for_another_model() -> None:
    assert build(model="openai:some-model", latency=0.0) is not build()


@pytest.mark.parametrize("role", ["researcher", "writer", "editor"])
def test_a_worker_file_holds_the_celery_app_of_its_role(role: str) -> None:
    assert importlib.import_module(f"workers.{role}").app is not None
