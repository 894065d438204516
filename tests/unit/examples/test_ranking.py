"""BM25 over stems."""

from examples.ranking import Index

INDEX = Index(
    ["The tide is high.", "Tides turn the turbines of the dam.", "A dam of stone. A dam of earth.", "Nothing."]
)


def test_the_passage_that_has_more_of_the_query_is_first() -> None:
    assert next(place for place, _ in INDEX.rank("tide and dam", limit=9)) == 1
    assert [place for place, _ in INDEX.rank("dams", limit=9)] == [2, 1]


def test_what_shares_no_term_is_not_found_and_stopwords_are_none() -> None:
    assert INDEX.rank("bread", limit=9) == [] == INDEX.rank("the of and", limit=9)
    assert Index([]).rank("tide", limit=9) == []


def test_the_limit_holds_and_scores_fall() -> None:
    found = INDEX.rank("tide dam turbine", limit=2)
    assert len(found) == 2 and found[0][1] > found[1][1] > 0.0


def test_what_few_passages_have_weighs_more() -> None:
    assert INDEX.rarity("turbin") > INDEX.rarity("dam") > 0.0
