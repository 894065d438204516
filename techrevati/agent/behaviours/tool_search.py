"""The query language of tool search.

select:a,b        these tools, by name
+mail send draft  must have "mail"; "send" and "draft" raise the rank
calendar event    any of the words, best first
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DEFAULT_RESULTS = 5
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; `names` is set for a ``select:`` query only."""

    names: tuple[str, ...] | None = None
    required: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """What a search looks at of one tool."""

    name: str
    description: str = ""


def parse_query(text: str) -> Query:
    """Read a query; every text is one, an empty one finds nothing."""
    text = text.strip()
    if text.lower().startswith("select:"):
        return Query(names=tuple(dict.fromkeys(name for part in text[7:].split(",") if (name := part.strip()))))
    words = text.lower().split()
    required = tuple(dict.fromkeys(word[1:] for word in words if word.startswith("+") and len(word) > 1))
    free = tuple(dict.fromkeys(word for word in words if not word.startswith("+")))
    return Query(required=required, words=free)


def split_words(text: str) -> set[str]:
    """Give the lower-case words of a text or a name: ``createEvent``, ``create_event`` are both create, event."""
    return {word.lower() for word in _WORD.findall(text)}


def score(entry: Entry, word: str) -> int:
    """Rate how well one word names a tool: 0 is not at all."""
    name = entry.name.lower()
    if word == name:
        return 20
    if word in split_words(entry.name):
        return 10
    if word in name:
        return 5
    if word in split_words(entry.description):
        return 3
    return 1 if word in entry.description.lower() else 0


def search(query: Query, entries: Iterable[Entry], *, limit: int = DEFAULT_RESULTS) -> list[str]:
    """Find the names of tools, best first, then by name.  A ``select:`` query keeps its own order and has no limit."""
    known: Sequence[Entry] = list(entries)
    if query.names is not None:
        names = {entry.name for entry in known}
        return [name for name in query.names if name in names]
    ranked: list[tuple[int, str]] = []
    for entry in known:
        musts = [score(entry, word) for word in query.required]
        total = sum(musts) + sum(score(entry, word) for word in query.words)
        if all(musts) and total:
            ranked.append((-total, entry.name))
    return [name for _, name in sorted(ranked)[:limit]]
