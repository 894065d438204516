"""§14.4: cursors, orders, filters and pages."""

import pytest

from techrevati.agent.threads import (
    Message,
    MessagePage,
    MessageQuery,
    Order,
    RunOrigin,
    RunQuery,
    RunRecord,
    RunStatus,
    ThreadListQuery,
    Visibility,
)
from techrevati.agent.threads.queries import page_of_messages, page_of_runs

MESSAGES = [
    Message.user(
        str(place),
        visibility=Visibility.INTERNAL if place % 4 == 3 else Visibility.ALL,
    ).within("even" if place % 2 == 0 else "odd")
    for place in range(10)
]


def cursors(page: MessagePage) -> list[int]:
    return [placed.cursor for placed in page.messages]


def ask(query: MessageQuery) -> list[int]:
    return cursors(page_of_messages(MESSAGES, query))


def test_14_4_defaults_show_what_everyone_may_see_oldest_first() -> None:
    page = page_of_messages(MESSAGES, MessageQuery())
    assert cursors(page) == [0, 1, 2, 4, 5, 6, 8, 9] and not page.has_more
    assert [placed.message.content for placed in page.messages] == ["0", "1", "2", "4", "5", "6", "8", "9"]


def test_14_4_bounds_are_exclusive() -> None:
    everything = {"visibility": None}
    assert ask(MessageQuery(after=2, before=6, **everything)) == [3, 4, 5]  # type: ignore[arg-type]
    assert ask(MessageQuery(after=8, **everything)) == [9]  # type: ignore[arg-type]
    assert ask(MessageQuery(before=0)) == ask(MessageQuery(after=9)) == ask(MessageQuery(after=50)) == []
    assert ask(MessageQuery(after=5, before=3)) == []


def test_14_4_descending_starts_at_the_newest() -> None:
    page = page_of_messages(MESSAGES, MessageQuery(order=Order.DESC, limit=3))
    assert cursors(page) == [9, 8, 6] and page.has_more and (page.prev_cursor, page.next_cursor) == (9, 6)
    assert ask(MessageQuery(order=Order.DESC, before=6, limit=3)) == [5, 4, 2]


def test_14_4_filters_keep_the_original_cursors() -> None:
    assert ask(MessageQuery(visibility=Visibility.INTERNAL)) == [3, 7]
    assert ask(MessageQuery(visibility=None)) == list(range(10))
    assert ask(MessageQuery(run_id="odd")) == [1, 5, 9]
    assert ask(MessageQuery(run_id="odd", visibility=None)) == [1, 3, 5, 7, 9]


def test_14_4_has_more_is_after_filtering() -> None:
    page = page_of_messages(MESSAGES, MessageQuery(visibility=Visibility.INTERNAL, limit=2))
    assert cursors(page) == [3, 7] and not page.has_more, "8 and 9 are no internal messages"


@pytest.mark.parametrize("order", Order)
def test_14_4_pages_follow_each_other_without_gap_or_repeat(order: Order) -> None:
    seen: list[int] = []
    query = MessageQuery(order=order, limit=3)
    while True:
        page = page_of_messages(MESSAGES, query)
        seen += cursors(page)
        if not page.has_more:
            break
        bound = {"after": page.next_cursor} if order is Order.ASC else {"before": page.next_cursor}
        query = MessageQuery(order=order, limit=3, **bound)  # type: ignore[arg-type]
    assert seen == [0, 1, 2, 4, 5, 6, 8, 9][:: 1 if order is Order.ASC else -1]


def test_14_4_an_empty_page_has_no_cursors() -> None:
    assert page_of_messages([], MessageQuery()) == MessagePage((), False)


def test_14_4_limits_stay_within_1_and_200() -> None:
    assert [MessageQuery(limit=limit).limit for limit in (-5, 0, 1, 200, 1000)] == [1, 1, 1, 200, 200]
    assert MessageQuery().limit == ThreadListQuery().limit == RunQuery().limit == 50
    assert RunQuery(limit=500, offset=-3).limit == 200 and RunQuery(offset=-3).offset == 0


def run(number: int, **fields: object) -> RunRecord:
    known = {
        "run_id": f"r{number}",
        "thread_id": "t",
        "agent_id": "a",
        "origin": RunOrigin.USER,
        "status": RunStatus.DONE,
        "created_at": number,
        "updated_at": number + 100,
    }
    return RunRecord(**{**known, **fields})  # type: ignore[arg-type]


RUNS = [
    run(3, created_at=2, parent_run_id="r1"),
    run(1, thread_id="u", origin=RunOrigin.A2A),
    run(2, status=RunStatus.WAITING, termination_code="input_required"),
    run(4, termination_code="natural"),
]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        (RunQuery(), ["r1", "r2", "r3", "r4"]),
        (RunQuery(thread_id="t"), ["r2", "r3", "r4"]),
        (RunQuery(parent_run_id="r1"), ["r3"]),
        (RunQuery(status=RunStatus.WAITING), ["r2"]),
        (RunQuery(termination_code="natural"), ["r4"]),
        (RunQuery(origin=RunOrigin.A2A), ["r1"]),
        (RunQuery(created_at_from=2), ["r2", "r3", "r4"]),
        (RunQuery(created_at_to=2), ["r1", "r2", "r3"]),
        (RunQuery(created_at_from=2, created_at_to=2), ["r2", "r3"]),
        (RunQuery(updated_at_from=103), ["r3", "r4"]),
        (RunQuery(updated_at_to=101), ["r1"]),
        (RunQuery(thread_id="t", status=RunStatus.DONE, created_at_from=3), ["r4"]),
    ],
)
def test_14_4_runs_by_what_is_asked(query: RunQuery, ids: list[str]) -> None:
    page = page_of_runs(RUNS, query)
    assert [record.run_id for record in page.items] == ids and page.total == len(ids) and not page.has_more


def test_14_4_runs_come_in_pages() -> None:
    page = page_of_runs(RUNS, RunQuery(offset=1, limit=2))
    assert [record.run_id for record in page.items] == ["r2", "r3"] and (page.total, page.has_more) == (4, True)
    assert page_of_runs(RUNS, RunQuery(offset=9)).items == ()
