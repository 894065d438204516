"""The newsroom's gate."""

from examples.notes import Note, read_notes
from examples.quality import review

NOTES = """# Tides
* The tide is the only renewable source with a printed timetable.
- Engineers have used tide mills since the Middle Ages.

## Plants
* La Rance has a capacity of 240 megawatts.
- Sihwa Lake was opened in 2011 in South Korea.
"""
GOOD = """# Tides

The tide is the only renewable source with a printed timetable.
Engineers have used tide mills since the Middle Ages.

## Plants

La Rance has a capacity of 240 megawatts. Sihwa Lake was opened in 2011 in South Korea."""


def test_notes_are_read_with_their_headings_and_stars() -> None:
    assert read_notes("## A\n- x y\n* z\n## B\n- first\n- second\n") == [
        Note("A", "x y", False),
        Note("A", "z", True),
        Note("B", "first", True),
        Note("B", "second", False),
    ]


def test_a_good_draft_passes() -> None:
    verdict = review(GOOD, NOTES, 36)
    assert (verdict.passed, verdict.score, verdict.problems) == (True, 1.0, ())


def test_a_missing_key_note_is_named() -> None:
    verdict = review(GOOD.replace("La Rance has a capacity of 240 megawatts.", ""), NOTES, 30)
    assert "missing: La Rance has a capacity of 240 megawatts." in verdict.problems
    assert verdict.score < 1.0


def test_saying_it_twice_is_named() -> None:
    again = "A capacity of 240 megawatts has La Rance."
    assert f"redundant: {again}" in review(f"{GOOD} {again}", NOTES, 36).problems


def test_figures_and_claims_out_of_nowhere_are_named() -> None:
    for sentence in ("La Rance has a capacity of 900 megawatts.", "Penguins adore elliptical cheese."):
        assert f"unsupported: {sentence}" in review(f"{GOOD} {sentence}", NOTES, 40).problems


def test_a_draft_far_from_its_length_is_named_with_the_bounds() -> None:
    short = review("# Tides\n\nThe tide is the only renewable source with a printed timetable.", NOTES, 30)
    assert any(problem.startswith("length: 11 words, wanted 26 to 34") for problem in short.problems)


def test_notes_shorter_than_the_target_set_the_length() -> None:
    assert review(GOOD, NOTES, 5_000).passed


def test_headline_and_lead_are_asked_for() -> None:
    body = GOOD.partition("## Plants")[2]
    assert {"headline", "lead"} <= set(review(f"## Plants{body}", NOTES, 36).kinds)


def test_an_empty_draft_is_judged_not_divided_by() -> None:
    verdict = review("", "", 10)
    assert not verdict.passed and 0.0 <= verdict.score <= 1.0
    assert review("", NOTES, 36).score < 0.5
