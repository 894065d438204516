"""The research agent's offline model: it searches, follows up, writes with sources, and asks to publish.

    question ──▶ search(question) ──▶ search(what is still open) ──▶ … ──▶ publish(title, text) ──▶ a report

It never invents: each sentence of the article stands in a passage that `search` has found, with its file.  It goes by
the tools and results in the chat alone, as a provider's model does, so one can take its place.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from examples.conversation import Conversation, Done, asks, read, says
from examples.extract import choose, count_words, leans, split_sentences, terms
from examples.offline_model import Sleep
from examples.ranking import Index
from techrevati.fleet.models import ModelReply, ModelRequest

SEARCHES = 3
WORDS = 110  # of an article
ENOUGH = 0.35  # of the best sentence's score: what is further from the question is left out


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    source: str


class ResearchModel:
    """A chat model on this machine; `latency` is what one call takes (s)."""

    def __init__(self, *, latency: float = 0.0, sleep: Sleep = asyncio.sleep) -> None:
        self._latency, self._sleep = latency, sleep

    async def complete(self, request: ModelRequest) -> ModelReply:
        """Take the next step of the research: one tool call, or the report that ends it."""
        if self._latency > 0.0:
            await self._sleep(self._latency)
        step = next_step(read(request))
        return await says(request, step) if isinstance(step, str) else asks(request, [step])


def next_step(chat: Conversation) -> str | tuple[str, dict[str, Any]]:
    """Decide what comes next: a call (name, arguments), or the words to end with."""
    if published := chat.of("publish"):
        return report(published[-1])
    searched = chat.of("search")
    found = [passage for call in searched if call.status == "success" for passage in call.data]
    query = next_query(chat.question, [str(call.arguments["query"]) for call in searched], found)
    if query is not None and len(searched) < SEARCHES:
        return "search", {"query": query}
    text = article(chat.question, found)
    if not text:
        return f"Nothing in the library answers: {chat.question}"
    return "publish", {"title": title(chat.question), "text": text}


def next_query(question: str, asked: Sequence[str], found: Sequence[dict[str, Any]]) -> str | None:
    """Say what to search for next, or None: first the question, then those of its words that nothing found has."""
    if not asked:
        return question
    known = set(terms(" ".join(f"{passage['heading']} {passage['text']}" for passage in found)))
    tried = {term for query in asked[1:] for term in terms(query)}
    left = [term for term in dict.fromkeys(terms(question)) if term not in known | tried]
    return " ".join(left) if left and set(left) != set(terms(question)) else None


def article(question: str, found: Iterable[dict[str, Any]]) -> str:
    """Write the sentences that bear on the question, in the order in which they stand, each with its source."""
    sentences = list(dict.fromkeys(_sentences(found)))
    texts = [sentence.text for sentence in sentences]
    ranked = dict(Index(texts).rank(question, limit=len(texts)))
    best = max(ranked.values(), default=0.0)
    near = [i for i in range(len(texts)) if ranked.get(i, 0.0) >= ENOUGH * best and best > 0.0 and not leans(texts[i])]
    if not near:
        return ""
    scores = [ranked[i] / best for i in near]
    chosen = choose([texts[i] for i in near], scores, words=max(WORDS, count_words(texts[near[0]])), diversity=0.3)
    lines: dict[str, list[str]] = {}
    for i in sorted(near[each] for each in chosen):
        lines.setdefault(sentences[i].source, []).append(texts[i])
    return "\n\n".join(f"{' '.join(said)} [{source}]" for source, said in lines.items())


def _sentences(found: Iterable[dict[str, Any]]) -> list[Sentence]:
    return [Sentence(text, passage["source"]) for passage in found for text in split_sentences(passage["text"])]


def title(question: str) -> str:
    """Make a headline of the question."""
    plain = " ".join(question.split()).rstrip(" ?.!")
    return (plain[:1].upper() + plain[1:])[:120]


def report(published: Done) -> str:
    """Say what became of the article; one that nobody let out is given here instead."""
    if published.status == "success":
        return f"Published: {published.data['path']}"
    why = published.message or "it was not allowed"
    return f"Not published ({why}).\n\n# {published.arguments['title']}\n\n{published.arguments['text']}"
