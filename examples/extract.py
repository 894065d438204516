"""Find the sentences that matter in a text: split, weigh, choose.

    markdown ──▶ sections ──▶ sentences ──tf-idf──▶ vectors ──TextRank──▶ scores ──MMR──▶ a choice

Pure functions on the standard library; the same input always gives the same choice.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import log, sqrt

Vector = dict[str, float]


def _these(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ABBREVIATIONS = _these("mr mrs ms dr prof st sr jr vs cf al e.g i.e approx ca c u.s u.k a.m p.m inc ltd co")
_BEFORE_NUMBERS = _these("no nos fig figs vol pp p ch sec eq jan feb mar apr jun jul aug sep sept oct nov dec")
_STOPWORDS = _these(
    "a about above after again all almost also although an and any are as at be because been before "
    "behind being below between both but by can could did do does down during each few for from had "
    "has have having he her here his how i if in into is it its itself just least less like made make "
    "many may more most much must never no nor not of off on once one only or other our out over own "
    "put same see she should since so some still such than that the their them then there therefore "
    "these they this those though through to too two under until up very was way we well were what "
    "when where which while who whole why will with without would yet you your"
)
_PRONOUNS = _these("it its they their them this that these those he she his her both another")
_CONNECTIVES = _these("therefore however also such earlier later moreover instead otherwise")
_OPENINGS = _PRONOUNS | _CONNECTIVES | _these("but yet so then and or")
_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s)")
_WORD = re.compile(r"[^\W_]+(?:[.,'’-][^\W_]+)*")
_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*$")
_ORDINAL = re.compile(r"The (?:first|second|third|last) (?:is|was)\b")
_NOT_PROSE = re.compile(r"\||```|~~~|<|={3,}$|-{3,}$|!\[|\[[^\]]+\]:")
_LIST_MARK = re.compile(r"(?:[-*+]|\d{1,3}[.)])\s+")

TOO_ALIKE = 0.5  # `likeness` at which one of two sentences is enough
DAMPING = 0.85  # the share of a score that comes from similar sentences; Mihalcea & Tarau 2004, §2.2


@dataclass(frozen=True, slots=True)
class Section:
    """One heading of a document and the sentences directly below it."""

    heading: str
    level: int  # 1 = `#`; 0 = text above the first heading
    sentences: tuple[str, ...]


def split_sentences(text: str) -> list[str]:
    """Cut running text into sentences, each with single spaces inside.

    A full stop ends a sentence unless it closes an abbreviation or an initial, or the next word
    goes on in lower case; one inside a number is never looked at.
    """
    text = " ".join(text.split())
    sentences, start = [], 0
    for end in _END.finditer(text):
        last = text[start : end.start()].rsplit(" ", 1)[-1].lstrip("(\"'“‘[*_")
        following = text[end.end() + 1 :].lstrip("(\"'“‘[*_£$€")
        if end.group().startswith(".") and _is_short_form(last, following):
            continue
        if following[:1].islower():
            continue
        sentences.append(text[start : end.end()].strip())
        start = end.end()
    if rest := text[start:].strip():
        sentences.append(rest)
    return sentences


def _is_short_form(word: str, following: str) -> bool:
    """Say whether the full stop behind a word belongs to the word: ``Dr.``, ``No. 7``, ``J. Smith``."""
    if word.lower() in _BEFORE_NUMBERS:
        return following[:1].isdigit()
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    return is_initial or word.lower() in _ABBREVIATIONS


def sections(markdown: str) -> list[Section]:
    """Give the sections of a document in order; tables, code and images are left out."""
    found: list[Section] = []
    heading, level, blocks, fenced = "", 0, [""], False

    def close() -> None:
        sentences = tuple(s for block in blocks for s in split_sentences(block))
        if heading or sentences:
            found.append(Section(heading, level, sentences))

    for raw in markdown.splitlines():
        line = raw.strip()
        code = raw.startswith(("    ", "\t")) and not blocks[-1] and not _LIST_MARK.match(line)
        if line.startswith(("```", "~~~")):
            fenced = not fenced
        elif fenced or code:
            continue
        elif match := _HEADING.match(line):
            close()
            heading, level, blocks = match[2], len(match[1]), [""]
        elif not line or _NOT_PROSE.match(line):
            blocks.append("")
        elif mark := _LIST_MARK.match(line):
            blocks.append(line[mark.end() :])
        else:
            blocks[-1] += " " + line.removeprefix(">").strip()
    close()
    return found


def count_words(text: str) -> int:
    """Count words as a reader would; Markdown marks are none."""
    return len(_WORD.findall(text))


def terms(sentence: str) -> list[str]:
    """Give the words that carry meaning, in lower case and roughly reduced to their stem."""
    found = (word.lower().replace("’", "'").removesuffix("'s") for word in _WORD.findall(sentence))
    return [_stem(word) for word in found if word not in _STOPWORDS]


def numbers(sentence: str) -> list[str]:
    """Give the figures in a sentence, thousands separators removed."""
    return [n.replace(",", "") for n in re.findall(r"\d+(?:[.,]\d+)*", sentence)]


def _stem(word: str) -> str:
    """Take off the commonest endings, so that a plural or a past form meets its root."""
    if word[0].isdigit():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("ches", "shes", "sses", "xes")):
        word = word[:-2]
    elif word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix, least in (("ing", 7), ("ed", 6)):
        if word.endswith(suffix) and len(word) >= least:
            word = word.removesuffix(suffix)
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def leans(sentence: str) -> bool:
    """Say whether a sentence points back at one before it, so that it cannot stand alone."""
    said = _WORD.findall(sentence)[:9]
    if (said and said[0].lower() in _OPENINGS) or _ORDINAL.match(sentence):
        return True
    named = next((i for i, word in enumerate(said) if i and word[0].isupper()), len(said))
    return any(word in _CONNECTIVES or (word in _PRONOUNS and i < min(named, 7)) for i, word in enumerate(said))


def vectors(sentences: Sequence[str]) -> list[Vector]:
    """Weigh each sentence's terms by tf-idf; every vector has length 1, or is empty."""
    counts = [Counter(terms(sentence)) for sentence in sentences]
    spread = Counter(term for count in counts for term in count)
    weighed = []
    for count in counts:
        raw = {t: n * (1.0 + log(len(sentences) / spread[t])) for t, n in count.items()}
        norm = sqrt(sum(weight * weight for weight in raw.values())) or 1.0
        weighed.append({term: weight / norm for term, weight in raw.items()})
    return weighed


def cosine(a: Vector, b: Vector) -> float:
    """Compare two vectors of length 1: 0.0 shares nothing, 1.0 says the same."""
    if len(b) < len(a):
        a, b = b, a
    return sum(weight * b[term] for term, weight in a.items() if term in b)


def overlap(sentence: str, source: str) -> float:
    """Give the share of a sentence's terms that the source has too."""
    own = set(terms(sentence))
    return len(own & set(terms(source))) / len(own) if own else 1.0


def likeness(a: str, b: str) -> float:
    """Compare two sentences by the terms they share, whatever text they stand in (Dice, 1945)."""
    first, second = set(terms(a)), set(terms(b))
    return 2.0 * len(first & second) / (len(first) + len(second)) if first or second else 0.0


def text_rank(weighed: Sequence[Vector], *, rounds: int = 30) -> list[float]:
    """Score sentences by how much the rest of the text resembles them; the best has 1.0.

    Source: Mihalcea and Tarau, "TextRank: Bringing Order into Texts", 2004, §2.2 and §4.
    """
    size = len(weighed)
    links = [[0.0 if i == j else cosine(weighed[i], weighed[j]) for j in range(size)] for i in range(size)]
    totals = [sum(row) or 1.0 for row in links]
    scores = [1.0] * size
    for _ in range(rounds):
        shares = [score / total for score, total in zip(scores, totals, strict=True)]
        scores = [(1.0 - DAMPING) + DAMPING * sum(w * s for w, s in zip(row, shares, strict=True)) for row in links]
    best = max(scores, default=1.0)
    return [score / best for score in scores]


def salience(sentences: Sequence[str]) -> list[float]:
    """Score sentences for an extract: central, concrete, and able to stand alone."""
    scores = text_rank(vectors(sentences))
    for index, sentence in enumerate(sentences):
        length = count_words(sentence)
        if numbers(sentence):
            scores[index] *= 1.15
        if leans(sentence):
            scores[index] *= 0.35
        if length < 8 or length > 45:
            scores[index] *= 0.6 if length < 60 else 0.2
        if sentence.endswith(("?", ":")):
            scores[index] *= 0.5
    return scores


def choose(
    sentences: Sequence[str],
    scores: Sequence[float],
    *,
    words: int,
    keep: Collection[int] = (),
    diversity: float = 0.5,
) -> list[int]:
    """Choose sentences up to a number of words, the most useful next one first.

    `keep` is chosen before all others.  `diversity` 0.0 follows the scores alone; towards 1.0 a
    sentence that resembles a chosen one counts ever less (maximal marginal relevance).

    Returns:
        Indices in the order of choice.

    Source: Carbonell and Goldstein, "The use of MMR", SIGIR 1998, §2.
    """
    weighed = vectors(sentences)
    chosen = list(keep)
    left = words - sum(count_words(sentences[i]) for i in chosen)
    waiting = [i for i in range(len(sentences)) if i not in set(chosen)]
    while True:
        waiting = [i for i in waiting if count_words(sentences[i]) <= left]
        if not waiting:
            return chosen
        likeness = {i: max((cosine(weighed[i], weighed[j]) for j in chosen), default=0.0) for i in waiting}
        best = max(waiting, key=lambda i: ((1.0 - diversity) * scores[i] - diversity * likeness[i], -i))
        chosen.append(best)
        waiting.remove(best)
        left -= count_words(sentences[best])
