"""Find the passages that a query is about: BM25 over the stems of `extract.terms`.

    passages ──▶ Index ──query──▶ (place, score), best first; what shares no term with the query is not there

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, §3.
"""

from collections import Counter
from collections.abc import Sequence
from math import log

from examples.extract import terms

SATURATION = 1.2  # k1: how soon another occurrence of a term stops counting
LENGTH = 0.75  # b: how much a long passage is held back


class Index:
    """Passages, weighed once, asked often."""

    def __init__(self, passages: Sequence[str]) -> None:
        self._counts = [Counter(terms(passage)) for passage in passages]
        self._spread = Counter(term for count in self._counts for term in count)
        self._sizes = [sum(count.values()) for count in self._counts]
        self._usual = sum(self._sizes) / len(self._sizes) if self._sizes else 1.0

    def rarity(self, term: str) -> float:
        """Give the inverse document frequency of a stem; greater for what few passages have, never negative."""
        spread = self._spread[term]
        return log(1.0 + (len(self._counts) - spread + 0.5) / (spread + 0.5))

    def rank(self, query: str, *, limit: int) -> list[tuple[int, float]]:
        """Give the places of the best passages with their scores, the best first."""
        wanted = dict.fromkeys(terms(query))
        scored = ((place, self._score(place, tuple(wanted))) for place in range(len(self._counts)))
        return sorted((found for found in scored if found[1] > 0.0), key=lambda found: (-found[1], found[0]))[:limit]

    def _score(self, place: int, wanted: Sequence[str]) -> float:
        held_back = SATURATION * (1.0 - LENGTH + LENGTH * self._sizes[place] / self._usual)
        count = self._counts[place]
        return sum(
            self.rarity(term) * count[term] * (SATURATION + 1.0) / (count[term] + held_back)
            for term in wanted
            if count[term]
        )
