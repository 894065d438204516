"""The query language of tool search."""

import pytest

from techrevati.agent.behaviours.tool_search import Entry, parse_query, search, split_words

TOOLS = [
    Entry("mail_send", "Send a message to people"),
    Entry("mail_search", "Find messages in the mailbox"),
    Entry("calendar_create_event", "Put an event into the calendar; sends mail to guests"),
    Entry("notes", "Keep drafts"),
    *(Entry(f"filler_{n}", "mailing things") for n in range(9)),
]


def found(query: str, limit: int = 5) -> list[str]:
    return search(parse_query(query), TOOLS, limit=limit)


def test_12_5_select_finds_by_exact_name_in_the_order_asked() -> None:
    assert found("select: notes, mail_send,notes,unknown,Mail_Send") == ["notes", "mail_send"]
    assert found("SELECT:" + ",".join(tool.name for tool in TOOLS), limit=1) == [tool.name for tool in TOOLS]


def test_12_5_a_plus_word_must_be_there_and_the_rest_ranks() -> None:
    assert found("+mail event")[:3] == ["calendar_create_event", "mail_search", "mail_send"]
    assert found("+calendar +mail") == ["calendar_create_event"]
    assert found("+calendar +nothing mail") == []


def test_12_5_words_in_the_name_count_more_than_words_in_the_description() -> None:
    assert found("send") == ["mail_send", "calendar_create_event"]
    assert found("drafts") == ["notes"]


def test_12_5_five_results_unless_told_otherwise() -> None:
    assert len(found("mail")) == 5
    assert len(found("mail", limit=99)) == 12


@pytest.mark.parametrize("query", ["", "   ", "+", "select:", "select:,", "zebra"])
def test_12_5_a_query_that_says_nothing_finds_nothing(query: str) -> None:
    assert found(query) == []


@pytest.mark.parametrize("name", ["createEvent", "create_event", "create-event", "Create.Event", "CREATE_EVENT"])
def test_12_5_names_are_split_as_people_write_them(name: str) -> None:
    assert split_words(name) == {"create", "event"}


def test_12_5_abbreviations_and_numbers_stay_words() -> None:
    assert split_words("parseHTMLPage2") == {"parse", "html", "page", "2"}
    assert split_words("größe_ändern") == {"größe", "ändern"}
