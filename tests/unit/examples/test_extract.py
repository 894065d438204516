"""Splitting, weighing and choosing sentences."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.extract import (
    choose,
    cosine,
    count_words,
    leans,
    likeness,
    numbers,
    overlap,
    salience,
    sections,
    split_sentences,
    terms,
    text_rank,
    vectors,
)

BRIEF = (Path(__file__).parents[3] / "examples" / "brief.md").read_text("utf-8")


@pytest.mark.parametrize(
    "sentences",
    [
        ["Dr. A. Doodson worked there.", "He used two machines."],
        ["The price was £178.54 in 2012 prices.", "Wind won at £37.35."],
        ["See No. 7 for the plan.", "The answer was no.", "Nobody asked again."],
        ["The U.K. won, e.g. in 2022.", "What then?", "Nothing!"],
        ['"Time and tide wait for no man."', "So it goes (as they say.)", "It rose 3.8 cm."],
        ["Mills, dams etc. are old.", "It opened at 9 a.m. sharp."],
        ["One … two.", "Three without an end"],
    ],
)
def test_sentences_end_where_a_reader_ends_them(sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences)) == sentences


@given(st.text(alphabet="aB1 .!?\n\"'()Dr", max_size=60))
def test_splitting_loses_no_character(text: str) -> None:
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


def test_sections_follow_headings_and_leave_out_what_is_no_prose() -> None:
    found = sections(
        "Above all.\n\n# Title #\nOne line,\nwrapped. Two.\n\n## Table\n| a | b |\n|---|---|\n| 1 | 2 |\n"
        "- An item. \n- Another\n\n```\n# not a heading. Code.\n```\n\n    indented code. No.\n\n> A quote."
    )
    assert [(section.heading, section.level, section.sentences) for section in found] == [
        ("", 0, ("Above all.",)),
        ("Title", 1, ("One line, wrapped.", "Two.")),
        ("Table", 2, ("An item.", "Another", "A quote.")),
    ]


def test_words_terms_and_numbers() -> None:
    assert count_words("The Sun's share is about 46 % — 3.7 TW.") == 8
    assert terms("The turbines were placed") == terms("a turbine's place")
    assert terms("Small cities, two gas boxes") == ["small", "city", "gas", "box"]
    assert numbers("1,200 m in 2011, 3.8 cm") == ["1200", "2011", "3.8"]


@pytest.mark.parametrize("sentence", ["It rises.", "However, the sea falls.", "The second is whether it pays."])
def test_a_sentence_that_points_back_leans(sentence: str) -> None:
    assert leans(sentence)


@pytest.mark.parametrize("sentence", ["While La Rance was built, its estuary died.", "The second dam is older."])
def test_a_sentence_that_names_what_it_speaks_of_does_not_lean(sentence: str) -> None:
    assert not leans(sentence)


def test_likeness_and_overlap_are_shares_of_terms() -> None:
    assert likeness("Tidal dams hold water", "Tidal dams hold water") == 1.0
    assert likeness("Tidal dams", "Wind farms") == 0.0
    assert overlap("Tidal dams", "All tidal dams hold water") == 1.0


def test_vectors_have_length_one_and_rank_prefers_the_shared() -> None:
    texts = ["tide power station", "tide power price", "tide power", "cheese"]
    weighed = vectors(texts)
    assert all(abs(cosine(vector, vector) - 1.0) < 1e-9 for vector in weighed)
    ranked = text_rank(weighed)
    assert max(ranked) == 1.0 and min(ranked) == ranked[3]


def test_rank_of_nothing_is_nothing() -> None:
    assert text_rank(vectors([])) == [] and choose([], [], words=10) == []


def test_choice_fits_the_words_and_avoids_saying_things_twice() -> None:
    texts = ["tidal power is old and proven", "tidal power is proven and old", "fish return in ten years"]
    scores = [1.0, 0.99, 0.5]
    assert choose(texts, scores, words=12, diversity=0.0) == [0, 1]
    assert choose(texts, scores, words=12, diversity=0.6) == [0, 2]
    assert choose(texts, scores, words=12, keep=[2], diversity=0.0) == [2, 0]


def test_the_brief_is_a_document_of_a_few_pages() -> None:
    found = sections(BRIEF)
    assert 1_500 <= count_words(BRIEF) <= 2_200
    assert len(found) >= 8 and "| La Rance" in BRIEF
    sentences = [sentence for section in found for sentence in section.sentences]
    assert len(sentences) == len(salience(sentences)) > 80
