"""What the research agent's model decides, and what its tools do; that it runs is for the acceptance tests."""

import json
from pathlib import Path
from typing import Any

import pytest

from examples.conversation import Conversation, Done
from examples.extract import split_sentences
from examples.research.library import EmptyLibrary, Library, passages
from examples.research.model import ResearchModel, article, next_query, next_step, report
from examples.research.shelf import Shelf, slug
from techrevati.agent.tools import ToolError
from techrevati.fleet.models import ModelRequest

LIBRARY = Library()
QUESTIONS = [
    "Who gave up leap seconds, and why?",
    "How accurate are quartz watches and atomic clocks?",
    "What did Harrison build, and how was it tested at sea?",
]


def researched(question: str) -> list[tuple[str, dict[str, Any]]]:
    """Give the calls that the model makes until it wants to publish."""
    calls: list[tuple[str, dict[str, Any]]] = []
    done: list[Done] = []
    while True:
        step = next_step(Conversation(question, tuple(done), frozenset(), 1))
        if isinstance(step, str):
            return calls
        calls.append(step)
        if step[0] == "publish":
            return calls
        done.append(Done(str(len(done)), *step, "success", LIBRARY.search(step[1]["query"], 4), ""))


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_sentence_of_an_article_stands_in_the_file_it_names(question: str) -> None:
    *_, (name, arguments) = researched(question)
    assert name == "publish"
    for paragraph in arguments["text"].split("\n\n"):
        said, _, source = paragraph.removesuffix("]").rpartition(" [")
        known = [passage.text for passage in LIBRARY.passages if passage.source == source]
        assert all(any(sentence in text for text in known) for sentence in split_sentences(said))


def test_what_was_not_found_at_first_is_searched_for_again_once() -> None:
    calls = researched(QUESTIONS[0])
    assert [arguments.get("query") for _, arguments in calls] == [QUESTIONS[0], "gave", None]


def test_no_query_is_asked_twice() -> None:
    found = [{"heading": "Tides", "text": "The tide is high."}]
    assert next_query("tides and bread", [], []) == "tides and bread"
    assert next_query("tides and bread", ["tides and bread"], found) == "bread"
    assert next_query("tides and bread", ["tides and bread", "bread"], found) is None


def test_a_question_that_the_library_does_not_know_is_not_published() -> None:
    assert [name for name, _ in researched("What is the best recipe for bread?")] == ["search"]
    assert article("bread", [{"source": "a.md", "heading": "", "text": "The tide is high."}]) == ""


def test_a_denied_article_is_given_back_with_the_reason() -> None:
    denied = Done("1", "publish", {"title": "Tides", "text": "High."}, "error", None, "The user denied this call.")
    assert report(denied) == "Not published (The user denied this call.).\n\n# Tides\n\nHigh."


async def test_it_reads_and_answers_in_the_shape_of_a_chat_model() -> None:
    said: list[dict[str, Any]] = [{"role": "system", "content": "Search."}, {"role": "user", "content": QUESTIONS[0]}]
    first = await ResearchModel().complete(ModelRequest("offline", said))
    assert first.stop_reason == "tool_calls" and first.input_tokens > 0
    (call,) = first.tool_calls
    assert json.loads(call["function"]["arguments"]) == {"query": QUESTIONS[0]}
    again = await ResearchModel().complete(ModelRequest("offline", said))
    assert again.tool_calls == first.tool_calls, "a turn that runs again asks the same"
    result = {"tool_name": "search", "status": "success", "data": []}
    answered = [*said, first.message, {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}]
    pieces: list[str] = []
    last = await ResearchModel().complete(ModelRequest("offline", answered, {"on_delta": pieces.append}))
    assert last.text == "".join(pieces) == f"Nothing in the library answers: {QUESTIONS[0]}"
    assert (last.stop_reason, last.tool_calls) == ("stop", [])


def test_a_library_is_cut_at_blank_lines_and_keeps_headings() -> None:
    cut = passages("a.md", "# T\n\nOne.\nTwo.\n\nThree.\n\n## U\nFour.\n")
    assert [(one.heading, one.text) for one in cut] == [("T", "One. Two."), ("T", "Three."), ("U", "Four.")]


def test_an_empty_library_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(EmptyLibrary, match="fix: give a directory"):
        Library(tmp_path)


def test_an_article_is_published_once_and_never_over_another(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "out")
    first = shelf.publish("Why tides?", "They follow the moon.")
    assert shelf.publish("Why tides?", "They follow the moon.") == first
    assert Path(first["path"]).read_text("utf-8") == "# Why tides?\n\nThey follow the moon.\n"
    with pytest.raises(ToolError, match=r"why-tides\.md is another article"):
        shelf.publish("Why: tides", "Other words.")
    assert [file.name for file in shelf.directory.iterdir()] == ["why-tides.md"]


@pytest.mark.parametrize("title", ["", "…", "x" * 121])
def test_a_title_that_makes_no_name_is_refused_before_anything_is_written(title: str, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="needs letters or digits"):
        Shelf(tmp_path / "out").publish(title, "Words.")
    assert not (tmp_path / "out").exists()


def test_no_title_leads_out_of_the_directory() -> None:
    assert slug("../../etc/Passwd") == "etc-passwd"
