"""Where a handoff goes."""

from techrevati.fleet.cards import Card
from techrevati.fleet.routing import HopLimits, Place, Refuse, Standing, Wait, decide, returns_in_a_row

CARDS = {
    "writer": Card("writer", "writer", ("editor", "checker")),
    "editor": Card("editor", "desk", ("writer",)),
    "checker": Card("checker", "checkers", (), fallback="editor"),
}
ALIVE = {"writer": 10, "desk": 1}


def standing(target: str, *, source: str = "writer", hops: int = 1, trail: tuple[str, ...] = ("writer",)) -> Standing:
    return Standing("r1", source, target, hops, trail)


def test_live_pool_gets_the_run_in_the_role_of_the_agent() -> None:
    assert decide(standing("editor"), CARDS, ALIVE) == Place("editor", "desk")


def test_pool_without_a_worker_is_waited_for_by_name() -> None:
    assert decide(standing("editor"), CARDS, {}) == Wait(1.0, "no live worker in pool 'desk'")


def test_fallback_takes_over_only_while_the_pool_is_empty() -> None:
    assert decide(standing("checker"), CARDS, ALIVE) == Place("editor", "desk")
    assert decide(standing("checker"), CARDS, {**ALIVE, "checkers": 1}) == Place("checker", "checkers")
    assert isinstance(decide(standing("checker"), CARDS, {"writer": 1}), Wait)


def test_undeclared_target_is_refused_with_those_that_are() -> None:
    refused = decide(standing("nobody"), CARDS, ALIVE)
    assert isinstance(refused, Refuse)
    assert (refused.type, "'nobody'" in refused.message) == ("UnknownRole", True)
    assert "checker, editor, writer" in refused.message


def test_target_that_its_source_declares_is_waited_for_until_its_pool_came_up() -> None:
    cards = {"writer": CARDS["writer"]}
    assert decide(standing("editor"), cards, ALIVE) == Wait(1.0, "no worker has declared agent 'editor' yet")


def test_target_outside_the_handoffs_is_refused_with_the_fix() -> None:
    refused = decide(standing("checker", source="editor", trail=("writer", "editor")), CARDS, ALIVE)
    assert refused == Refuse(
        "HandoffRefused",
        "editor may hand off to writer, not to 'checker'; fix: fleet.agent('editor', handoffs=('checker', …))",
    )


def test_hops_and_ping_pong_have_limits() -> None:
    limits = HopLimits(hops=3, ping_pong=2)
    assert isinstance(decide(standing("editor", hops=3), CARDS, ALIVE, limits), Place)
    assert isinstance(decide(standing("editor", hops=4), CARDS, ALIVE, limits), Refuse)
    back = decide(standing("editor", hops=3, trail=("writer", "editor") * 2 + ("writer",)), CARDS, ALIVE, limits)
    assert isinstance(back, Refuse) and back.type == "PingPong"


def test_returns_are_counted_from_the_end() -> None:
    assert returns_in_a_row([], "a") == 0
    assert returns_in_a_row(["a"], "b") == 0
    assert returns_in_a_row(["a", "b"], "a") == 1
    assert returns_in_a_row(["a", "b", "a"], "b") == 2
    assert returns_in_a_row(["a", "b", "c", "b"], "c") == 2
    assert returns_in_a_row(["a", "b", "a"], "c") == 0
