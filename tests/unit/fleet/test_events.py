"""Pages of a run's events."""

from typing import Any

import pytest

from techrevati.fleet.events import PAGE, BadCursor, Cursor, page

RUN = "r" * 32 + ".0"


def entry(seq: int, kind: str = "e", n: int = 0, by: str = "c1") -> list[Any]:
    return [f"{seq}-{n}", ["type", kind, "at", "1000000", "c", by]]


def run(seq: int, status: str = "running") -> list[str]:
    return ["status", status, "seq", str(seq), "role", "writer", "turn", "2"]


def test_cursor_is_read_from_an_event_id() -> None:
    assert Cursor.parse("17.3~ab") == Cursor(17, 3, "ab")
    assert Cursor.parse("17") == Cursor(17, 0, "") and Cursor.parse(None) == Cursor.parse("") == Cursor()


@pytest.mark.parametrize("text", ["x", "1.x", "~a", "-1", "1.2.3"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadCursor, match="pass the id of an event you have seen"):
        Cursor.parse(text)


def test_deltas_stand_behind_the_event_they_follow() -> None:
    found = page(RUN, Cursor(), [[entry(1), entry(2)], [entry(1, "d", 1), entry(1, "d", 2), entry(2, "d", 1)], run(2)])
    assert [(event.seq, event.n) for event in found.events] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    assert (found.cursor, found.ended) == (Cursor(2, 1, "c1"), False)


def test_the_event_at_the_cursor_is_proof_and_not_given_again() -> None:
    found = page(RUN, Cursor(1, 0, "c1"), [[entry(1), entry(2)], [], run(2)])
    assert [event.seq for event in found.events] == [2]


@pytest.mark.parametrize(
    ("cursor", "durable"),
    [
        (Cursor(1, 0, "another"), [entry(1), entry(2)]),  # off the chain
        (Cursor(1, 0, "c1"), [entry(2)]),  # trimmed
        (Cursor(9, 0, "c1"), []),  # beyond what Redis kept
        (Cursor(), [entry(2)]),  # from the first, which is gone
    ],
)
def test_cursor_that_is_gone_is_reset_with_a_snapshot(cursor: Cursor, durable: list[Any]) -> None:
    found = page(RUN, cursor, [durable, [], run(2)])
    assert [event.type for event in found.events] == ["stream_reset"]
    assert found.events[0].data["snapshot"]["status"] == "running"
    assert found.cursor.seq == 2


def test_run_that_is_gone_is_not_known() -> None:
    assert not page(RUN, Cursor(), [[], [], []]).known


def test_it_has_ended_when_the_last_event_was_given() -> None:
    assert page(RUN, Cursor(), [[entry(1), entry(2)], [], run(2, "completed")]).ended
    assert page(RUN, Cursor(2, 0, "c1"), [[entry(2)], [], run(2, "completed")]).ended
    assert not page(RUN, Cursor(), [[entry(1)], [], run(2, "completed")]).ended


def test_deltas_beyond_a_full_page_wait_for_the_next() -> None:
    durable = [entry(seq) for seq in range(1, PAGE + 1)]
    found = page(RUN, Cursor(), [durable, [entry(PAGE, "d", 1), entry(PAGE + 5, "d", 1)], run(PAGE + 9)])
    assert found.events[-1].seq == PAGE and found.events[-1].n == 0
