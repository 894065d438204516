"""Which desk a sentence is for: multinomial naive Bayes over labelled sentences.

    concerns.csv ──▶ counts of stems per label ──sentence──▶ the likeliest label
    ticket ──sentences──▶ {label: the sentences that are for it}

Source: Manning, Raghavan, Schütze, "Introduction to Information Retrieval", 2008, §13.2 (with add-one smoothing).
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable
from math import log
from pathlib import Path

from examples.extract import split_sentences, terms

CONCERNS = Path(__file__).parent / "records" / "concerns.csv"
OTHER = "other"


class Sorter:
    """Learns from (label, sentence) pairs, once."""

    def __init__(self, labelled: Iterable[tuple[str, str]]) -> None:
        self._words: dict[str, Counter[str]] = defaultdict(Counter)
        self._seen = Counter[str]()
        for label, sentence in labelled:
            self._words[label].update(terms(sentence))
            self._seen[label] += 1
        self._known = {term for words in self._words.values() for term in words}

    def label(self, sentence: str) -> str:
        """Give the likeliest label; a sentence without a known word is `OTHER`."""
        told = [term for term in terms(sentence) if term in self._known]
        if not told:
            return OTHER
        return max(sorted(self._seen), key=lambda label: self._likelihood(label, told))

    def _likelihood(self, label: str, told: Iterable[str]) -> float:
        words = self._words[label]
        total = sum(words.values()) + len(self._known)
        prior = log(self._seen[label] / self._seen.total())
        return prior + sum(log((words[term] + 1) / total) for term in told)

    def concerns(self, ticket: str) -> dict[str, str]:
        """Give the sentences of a ticket by the desk they are for; what is for none is left out."""
        found: dict[str, list[str]] = {}
        for line in ticket.splitlines():
            for sentence in split_sentences(line):
                if (label := self.label(sentence)) != OTHER:
                    found.setdefault(label, []).append(sentence)
        return {label: " ".join(sentences) for label, sentences in sorted(found.items())}


def learned(path: Path = CONCERNS) -> Sorter:
    """Learn from a CSV file of label, sentence."""
    with path.open(encoding="utf-8", newline="") as file:
        return Sorter([(label, sentence) for label, sentence in csv.reader(file)])
