"""Where a run stood after a checkpoint: read from its events and its record."""

from typing import Any

import pytest

from techrevati.fleet.forking import Standing, standing_after
from techrevati.store.records import Event


def events(*said: tuple[str, dict[str, Any]]) -> list[Event]:
    return [Event(f"{n}.0~x", n, 0, kind, 0.0, "run", data) for n, (kind, data) in enumerate(said, 1)]


QUEUED = ("run.queued", {"agent": "writer", "role": "pen"})
PLACED = ("handoff.placed", {"source": "writer", "target": "editor", "role": "pen"})


def started(turn: int) -> tuple[str, dict[str, Any]]:
    return "turn.started", {"turn": turn}


def committed(turn: int, move: str = "continue", **more: Any) -> tuple[str, dict[str, Any]]:
    return "turn.committed", {"turn": turn, "move": move, **more}


HANDED = events(
    QUEUED, started(1), committed(1), started(2), committed(2, "handoff", target="editor"), PLACED, started(3),
    committed(3), started(4), committed(4, "complete"),
)  # fmt: skip
RECORD = {"hops": "1", "handed": '{"k":1}', "agent": "editor"}


@pytest.mark.parametrize(
    ("turn", "stands"),
    [
        (None, Standing("writer", 1)),
        (1, Standing("writer", 2)),
        (2, Standing("editor", 3, '{"k":1}')),
        (3, Standing("editor", 4, '{"k":1}')),
        (4, Standing("editor", 5, '{"k":1}')),
    ],
)
def test_fork_goes_on_with_who_had_the_next_turn(turn: int | None, stands: Standing) -> None:
    assert standing_after(HANDED, turn, RECORD) == stands


def test_what_an_earlier_handoff_carried_is_not_made_up() -> None:
    assert standing_after(HANDED, 2, {**RECORD, "hops": "2"}) == Standing("editor", 3, "")


def test_a_handoff_that_is_not_placed_yet_goes_to_its_target() -> None:
    asked = events(QUEUED, started(1), committed(1, "handoff", target="editor"))
    assert standing_after(asked, 1, RECORD).agent == "editor"


def test_a_forks_own_first_version_stands_where_it_began() -> None:
    assert standing_after(events(QUEUED, started(3), committed(3)), None, {}) == Standing("writer", 3)


def test_without_events_the_record_says_whose_turn_it_is() -> None:
    assert standing_after([], 2, RECORD) == Standing("editor", 3)
    assert standing_after([], 2, {}).agent == ""
