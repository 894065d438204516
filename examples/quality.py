"""The newsroom's gate: may this draft be printed, and if not, what is wrong with it?

    draft, notes, length ──▶ review ──▶ Review(score, problems)

Pure, so the same draft always gets the same verdict.  The rules hold for any writer, extractive or
not: they look at what is said, not at how.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from examples.extract import TOO_ALIKE, count_words, likeness, numbers, overlap, sections, terms
from examples.notes import Note, read_notes

COVERED = 0.6  # share of a note's terms that one sentence of the draft must have
SUPPORTED = 0.6  # share of a draft sentence's terms that the notes must have
LENGTH = 0.12  # allowed difference from the length asked for
LEAD_MOST = 90  # words above the first subheading

_WEIGHTS = {"coverage": 0.35, "support": 0.25, "length": 0.15, "variety": 0.15, "form": 0.10}


@dataclass(frozen=True, slots=True)
class Review:
    """A verdict: 1.0 is the best score; a draft without problems may be printed.

    A problem is one line that begins with its kind: ``missing: The sentence nobody wrote.``
    """

    score: float
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is wrong, each kind once."""
        return tuple(dict.fromkeys(problem.partition(":")[0] for problem in self.problems))


def review(draft: str, notes: str, target_words: int) -> Review:
    """Judge a draft against the notes it was made from and the length asked for.

    Where the notes hold fewer words than that, their length is what a draft must reach.
    """
    noted = read_notes(notes)
    target_words = max(1, min(target_words, sum(count_words(note.text) for note in noted)))
    parts = sections(draft)
    sentences = [sentence for part in parts for sentence in part.sentences]
    body = " ".join(sentences)
    missing = _missing(noted, sentences)
    unsupported = _unsupported(noted, sentences)
    redundant = list(
        dict.fromkeys(b for a, b in combinations(sentences, 2) if likeness(a, b) >= TOO_ALIKE),
    )
    length = _length(count_words(body), target_words)
    form = _form(draft)
    keys = sum(note.key for note in noted) or 1
    marks = {
        "coverage": 1.0 - len(missing) / keys,
        "support": 1.0 - len(unsupported) / max(len(sentences), 1),
        "length": max(0.0, 1.0 - abs(count_words(body) - target_words) / target_words) if length else 1.0,
        "variety": 1.0 - len(redundant) / max(len(sentences), 1),
        "form": 1.0 - len(form) / 2,
    }
    return Review(
        round(sum(_WEIGHTS[name] * mark for name, mark in marks.items()), 3),
        (
            *form,
            *length,
            *(f"missing: {text}" for text in missing),
            *(f"redundant: {text}" for text in redundant),
            *(f"unsupported: {text}" for text in unsupported),
        ),
    )


def _missing(notes: Sequence[Note], sentences: Sequence[str]) -> list[str]:
    """Give the key notes that no sentence tells."""
    keys = [note.text for note in notes if note.key]
    return [key for key in keys if all(overlap(key, sentence) < COVERED for sentence in sentences)]


def _unsupported(notes: Sequence[Note], sentences: Sequence[str]) -> list[str]:
    """Give the sentences whose figures or words the notes do not have."""
    known = " ".join(f"{note.heading}. {note.text}" for note in notes)
    words, figures = set(terms(known)), set(numbers(known))

    def stands(sentence: str) -> bool:
        own = set(terms(sentence))
        return set(numbers(sentence)) <= figures and len(own & words) >= SUPPORTED * len(own)

    return [sentence for sentence in sentences if not stands(sentence)]


def _length(words: int, target: int) -> list[str]:
    least, most = round(target * (1 - LENGTH)), round(target * (1 + LENGTH))
    return [] if least <= words <= most else [f"length: {words} words, wanted {least} to {most}"]


def _form(draft: str) -> list[str]:
    """Check what a reader sees first: a headline, and a lead before any subheading."""
    parts = sections(draft)
    problems = []
    if not parts or parts[0].level != 1:
        problems.append("headline: the article has no headline; open it with '# ' and a title")
    lead = count_words(" ".join(parts[0].sentences)) if parts and parts[0].level <= 1 else 0
    if not lead:
        problems.append("lead: nothing stands above the first subheading; open with a sentence or two")
    elif lead > LEAD_MOST and len(parts) > 1:
        problems.append(f"lead: {lead} words above the first subheading; keep it under {LEAD_MOST}")
    return problems
