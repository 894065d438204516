"""Loading a thread: what is remembered, what is read."""

from techrevati.fleet.history import View, fold, ranges, remembered
from techrevati.store.records import Checkpoint, ThreadHead


def version(
    number: int, *, full: str | None = None, delta: str | None = None, after: str = "", back: int | None = None
) -> Checkpoint:
    return Checkpoint(number, f"c{number}", after or f"c{number - 1}", number, "0:", full, delta, back, None)


def head(number: int) -> ThreadHead:
    return ThreadHead(number, f"c{number}", number, "0:", 1, 0, 0)


VIEW = View(2, "c2", "0:", 2, {"a": "2"}, ("m1", "m2"), 7, 1)


def test_spans_give_what_a_version_shows() -> None:
    assert ranges("0:", 5) == [(0, 5)]
    assert ranges("0:12,20:", 25) == [(0, 12), (20, 25)]
    assert ranges("0:0,3:", 3) == []


def test_versions_fold_from_the_last_full_one() -> None:
    entries = [
        version(1, full='{"a":1}'),
        version(2, delta='{"s":{"b":2}}'),
        version(3),
        version(4, delta='{"d":["a"]}'),
    ]
    assert fold({}, entries) == ({"b": "2"}, 7, 3)
    assert fold({"z": "0"}, [version(5, delta='{"s":{"y":1}}')]) == ({"z": "0", "y": "1"}, 0, 1)


def test_a_remembered_view_is_brought_up_to_the_head() -> None:
    view = remembered(VIEW, head(4), [version(2), version(3, delta='{"s":{"a":3}}'), version(4)])
    assert view is not None
    assert (view.version, view.commit, view.state, view.since, view.full_bytes) == (4, "c4", {"a": "3"}, 3, 7)


def test_a_view_off_the_chain_is_forgotten() -> None:
    assert remembered(VIEW, head(3), []) is None
    assert remembered(VIEW, head(3), [version(3)]) is None, "its own version is gone"
    other = Checkpoint(2, "other", "c1", 2, "0:", None, None, None, None)
    assert remembered(VIEW, head(3), [other, version(3, after="other")]) is None, "another history"
    assert remembered(VIEW, head(3), [version(2), version(3, after="elsewhere")]) is None
    assert remembered(VIEW, head(3), [version(2), version(3, back=1)]) is None, "rolled back"
    assert remembered(VIEW, head(4), [version(2), version(3)]) is None, "the head is not reached"
