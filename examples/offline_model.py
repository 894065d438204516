"""A model that needs no network: extractive, deterministic, and shaped like a chat model.

    system: "... TASK: research"  ──▶  the sentences worth noting, by heading
    system: "... TASK: write"     ──▶  an article made of noted sentences
    system: "... TASK: edit"      ──▶  what the article leaves out

It never invents: every sentence it returns stands in what it was given.  Agents reach it through
plain chat messages, so a provider's model can take its place without a change to them.
"""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from itertools import combinations
from typing import Any

from examples.extract import TOO_ALIKE, Section, choose, count_words, leans, likeness, salience, sections
from examples.notes import Note, read_notes
from techrevati.fleet.models import ModelReply, ModelRequest
from techrevati.runtime.errors import TechrevatiError

INPUT_PRICE = 150_000  # pretend micro-dollars per 1M tokens, the order of a small hosted model
OUTPUT_PRICE = 600_000

NOTES_SHARE = 0.45  # of a section's words
NOTES_LEAST = 3  # sentences
REMARKS = 3

Sleep = Callable[[float], Awaitable[object]]


class UnknownTask(TechrevatiError):
    """The system prompt asks for something the offline model cannot do."""

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return (
            f"the offline model knows no task {self.task!r}; "
            "fix: put a line 'TASK: research', 'TASK: write' or 'TASK: edit' into the system prompt"
        )


class OfflineModel:
    """A chat model on this machine.

    `latency` is what one call takes, in seconds: real providers are slow, and a demo that shows
    nothing moving teaches nothing.
    """

    def __init__(self, *, latency: float = 0.0, sleep: Sleep = asyncio.sleep) -> None:
        self._latency, self._sleep = latency, sleep

    async def complete(self, request: ModelRequest) -> ModelReply:
        """Answer the chat; the option `on_delta` gets the text in pieces as it is written.

        Raises:
            UnknownTask: the system prompt names no task, or an unknown one.
        """
        text = answer(request.messages)
        on_delta = request.options.get("on_delta")
        pieces = re.findall(r"\S+\s*", text) if on_delta else []
        groups = ["".join(pieces[i : i + 8]) for i in range(0, len(pieces), 8)] or [""]
        for group in groups:
            if self._latency > 0.0:
                await self._sleep(self._latency / len(groups))
            if on_delta and group:
                told = on_delta(group)
                if inspect.isawaitable(told):
                    await told
        given = sum(count_tokens(_content(message)) + 4 for message in request.messages)
        written = count_tokens(text)
        return ModelReply(
            text=text,
            input_tokens=given,
            output_tokens=written,
            cost_micros=price(given, written),
            model=request.model,
        )


def count_tokens(text: str) -> int:
    """Approximate a tokenizer: four characters of English to a token, rounded up."""
    return -(-len(text) // 4)


def price(input_tokens: int, output_tokens: int) -> int:
    """Give the pretend price in micro-dollars, rounded up."""
    return -(-(input_tokens * INPUT_PRICE + output_tokens * OUTPUT_PRICE) // 1_000_000)


def answer(messages: Sequence[dict[str, Any]]) -> str:
    """Do what the system prompt's task line says with the user's content.

    Raises:
        UnknownTask: there is no such line, or it names another task.
    """
    system = "\n".join(_content(m) for m in messages if m.get("role") == "system")
    content = "\n".join(_content(m) for m in messages if m.get("role") == "user")
    found = re.search(r"^TASK:[ \t]*(\S+)", system, re.MULTILINE)
    task = found[1] if found else ""
    match task:
        case "research":
            return research(_tagged(content, "document"))
        case "write":
            return write(
                _tagged(content, "notes"),
                words=int(_tagged(content, "words") or 400),
                draft=_tagged(content, "draft"),
                problems=_tagged(content, "problems"),
            )
        case "edit":
            return edit(_tagged(content, "notes"), _tagged(content, "draft"))
        case _:
            raise UnknownTask(task)


def _content(message: dict[str, Any]) -> str:
    """Give a message's text; providers also allow a list of typed parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)


def _tagged(content: str, tag: str) -> str:
    found = re.search(rf"<{tag}>\n?(.*)</{tag}>", content, re.DOTALL)
    return found[1].removesuffix("\n") if found else ""


# -- research: the sentences worth keeping, by heading; `*` marks the one not to be missed


def research(document: str) -> str:
    """Note the sentences of each section that carry it, without saying anything twice."""
    return "\n\n".join(_noted(section) for section in sections(document) if section.sentences)


def _noted(section: Section) -> str:
    sentences = section.sentences
    scores = salience(sentences)
    if not leans(sentences[0]):
        scores[0] *= 2.0  # what opens a section usually says what it is about
    words = sum(map(count_words, sentences))
    order = choose(sentences, scores, words=max(int(words * NOTES_SHARE), 60), diversity=0.4)
    kept = [i for i in order if not leans(sentences[i])]
    if len(kept) < NOTES_LEAST:
        kept = order[:NOTES_LEAST]
    heading = [f"{'#' * max(section.level, 1)} {section.heading}"] if section.heading else []
    notes = [f"{'*' if i == kept[0] else '-'} {sentences[i]}" for i in sorted(kept)]
    return "\n".join([*heading, *notes])


# -- write: an article of a given length out of notes


def write(notes: str, *, words: int, draft: str = "", problems: str = "") -> str:
    """Write an article of about `words` words; with a draft and its problems, a better one.

    The first draft follows salience alone.  A revision drops what a problem calls redundant, adds
    what one calls missing, keeps of the old draft what is key and then what is weighty, and refills
    with what differs most from the rest.
    """
    noted = read_notes(notes)
    sentences = [note.text for note in noted]
    scores = salience(sentences)
    if not draft.strip():
        return _article(notes, noted, choose(sentences, scores, words=words, diversity=0.0))
    told = _complaints(problems)
    where = {_plain(sentence): i for i, sentence in enumerate(sentences)}

    def named(*kinds: str) -> list[int]:
        return [where[s] for kind in kinds for s in told.get(kind, ()) if s in where]

    drop = set(named("redundant", "unsupported"))
    written = {_plain(s) for section in sections(draft) for s in section.sentences}
    before = [i for s, i in where.items() if s in written and i not in drop]
    keep = list(dict.fromkeys(named("missing")))
    for i in sorted(before, key=lambda i: (not noted[i].key, -scores[i])):
        alike = any(likeness(sentences[i], sentences[j]) >= TOO_ALIKE for j in keep)
        fits = sum(count_words(sentences[j]) for j in [*keep, i]) <= words
        if i not in keep and not alike and fits:
            keep.append(i)
    for i in named("consider"):
        scores[i] += 0.5
    for i in drop:
        scores[i] = -1.0
    chosen = choose(sentences, scores, words=words, keep=keep)
    return _article(notes, noted, [i for i in chosen if i not in drop])


def _complaints(problems: str) -> dict[str, list[str]]:
    """Read lines like ``- missing: The sentence.`` into sentences by kind."""
    told: dict[str, list[str]] = {}
    for kind, about in re.findall(r"^[-*]\s*(\w+):\s*(.+)$", problems, re.MULTILINE):
        told.setdefault(kind, []).append(_plain(about))
    return told


def _plain(sentence: str) -> str:
    return " ".join(sentence.split())


def _article(notes: str, noted: Sequence[Note], chosen: Sequence[int]) -> str:
    """Set the chosen notes under their headings, in the order in which they were taken."""
    title = next((section.heading for section in sections(notes) if section.level == 1), "")
    lines = [f"# {title}"] if title else []
    for heading in dict.fromkeys(note.heading for note in noted):
        here = [noted[i].text for i in sorted(chosen) if noted[i].heading == heading]
        if here:
            lines += [] if heading in ("", title) else [f"## {heading}"]
            lines.append(" ".join(here))
    return "\n\n".join(lines)


# -- edit: what a reader would miss


def edit(notes: str, draft: str) -> str:
    """Name what an editor would change beyond the house rules.

    Pairs of draft sentences that say nearly the same, and the weightiest notes that nothing in the
    draft resembles.
    """
    noted = [note.text for note in read_notes(notes)]
    drafted = [sentence for section in sections(draft) for sentence in section.sentences]
    remarks = [f"- redundant: {b}" for a, b in combinations(drafted, 2) if likeness(a, b) >= TOO_ALIKE]
    nearest = [max((likeness(note, sentence) for sentence in drafted), default=0.0) for note in noted]
    ranked = sorted(zip(salience(noted), nearest, noted, strict=True), key=lambda row: -row[0])
    remarks += [f"- consider: {note}" for _, near, note in ranked if near < 0.3]
    return "\n".join(remarks[:REMARKS]) or "- fine: nothing to add"
