"""Three agents that turn a document into an article.

    document ──▶ researcher ──notes──▶ writer ──draft──▶ editor ──▶ article
                                         ▲                 │
                                         └────problems─────┘   until the gate passes, 4 rounds at most

    start("researcher", {"document": "...markdown...", "words": 450})

What the desk knows (notes, draft, round) is the thread's durable state; a handoff carries only what
its receiver must hear.  The agents speak plain chat: ``TECHREVATI_DEMO_MODEL=openai:NAME`` puts a
provider's model in the place of the offline one.
"""

import os
from typing import Any

from examples.extract import count_words, sections
from examples.offline_model import OfflineModel
from examples.quality import Review, review
from techrevati.fleet import Fleet, Outcome, Turn

WORDS = 450  # of an article, unless the input says otherwise
READ_WORDS = 400  # of the document the researcher reads in one turn, sections kept whole
ROUNDS = 4

RESEARCH = """\
You are the researcher of a small newsroom. From the document, note what its readers must know.
Repeat every heading of the document as it stands. Below each, write one note per line: a sentence
copied word for word. Begin the one note that must not be missed with '* ' and the others with '- '.
TASK: research"""

WRITE = """\
You are the writer of a small newsroom. From the notes, write an article in Markdown: a headline
('# '), a lead of one or two sentences, then sections ('## '). State nothing that the notes do not
state. Meet the number of words. If there is a draft with problems, return the whole article with
every problem mended; 'consider' is advice, the other problems are not.
TASK: write"""

EDIT = """\
You are the editor of a small newsroom. Read the draft against the notes. Answer with at most three
lines, each '- consider: ' and a note that the article should tell, or '- redundant: ' and a
sentence that it can spare.
TASK: edit"""


def build(model: str = "offline", latency: float = 0.3) -> Fleet:
    """Make the newsroom; `model` is the name its agents call, `latency` what the offline one takes (s)."""
    fleet = Fleet("newsroom")
    fleet.model("offline", OfflineModel(latency=latency))

    @fleet.agent("researcher", handoffs=("writer",))
    async def research(turn: Turn) -> Outcome:
        """Read one part of the document, and come back for the next."""
        if problem := refuse(turn.input):
            return turn.fail(problem)
        parts = reading(turn.input["document"], words=READ_WORDS)
        notes = [] if turn.state.get("run_id") != turn.run_id else turn.state["notes"]
        reply = await turn.model(model, chat(RESEARCH, document=parts[len(notes)]))
        notes = [*notes, reply.text]
        turn.state.update(run_id=turn.run_id, notes=notes, draft="", round=0, best=None)
        turn.emit("progress", {"done": len(notes), "total": len(parts), "label": "parts read"})
        if len(notes) < len(parts):
            return turn.continue_()
        return turn.handoff("writer", reason=f"{len(parts)} parts read", context={"problems": []})

    @fleet.agent("writer", handoffs=("editor",))
    async def write(turn: Turn) -> Outcome:
        """Write the article, or mend what the editor found."""
        problems = turn.handed.context.get("problems", []) if turn.handed else []
        prompt = chat(
            WRITE,
            words=str(turn.input.get("words", WORDS)),
            notes=joined(turn.state["notes"]),
            draft=turn.state["draft"],
            problems="\n".join(f"- {problem}" for problem in problems),
        )
        reply = await turn.model(model, prompt)
        turn.state["draft"], turn.state["round"] = reply.text, turn.state["round"] + 1
        return turn.handoff("editor", reason=f"draft {turn.state['round']}")

    @fleet.agent("editor", handoffs=("writer",))
    async def edit(turn: Turn) -> Outcome:
        """Print the draft if the gate lets it pass; else say what is wrong with it."""
        draft, notes, done = turn.state["draft"], joined(turn.state["notes"]), turn.state["round"]
        verdict = review(draft, notes, turn.input.get("words", WORDS))
        turn.emit("progress", {"done": round(verdict.score * 100), "total": 100, "label": "quality"})
        best = better(turn.state["best"], draft, verdict, done)
        turn.state["best"] = best
        if verdict.passed or done >= ROUNDS:
            return turn.complete(printed(best, rounds=done))
        remarks = await turn.model(model, chat(EDIT, notes=notes, draft=draft))
        return turn.handoff(
            "writer",
            reason=f"score {verdict.score:.2f}: {', '.join(verdict.kinds)}",
            context={"problems": [*verdict.problems, *advice(remarks.text)]},
        )

    return fleet


def refuse(given: Any) -> str | None:
    """Say what is wrong with the input of a run, if anything is."""
    fix = 'fix: start("researcher", {"document": "...markdown...", "words": 450})'
    if not isinstance(given, dict) or not isinstance(given.get("document"), str):
        return f"newsroom: the input has no text under 'document'; {fix}"
    if not any(section.sentences for section in sections(given["document"])):
        return f"newsroom: the document has no sentences to work with; {fix}"
    words = given.get("words", WORDS)
    if not isinstance(words, int) or words < 50:
        return f"newsroom: 'words' is {words!r}, wanted a whole number from 50 up; {fix}"
    return None


def chat(system: str, **parts: str) -> list[dict[str, Any]]:
    """Put a role's instruction and its material, each part in a tag of its name, into messages."""
    content = "\n\n".join(f"<{name}>\n{text}\n</{name}>" for name, text in parts.items() if text)
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def joined(notes: list[str]) -> str:
    return "\n\n".join(notes)


def reading(document: str, *, words: int) -> list[str]:
    """Cut a document into parts of about `words` words, at headings; one without a title gets one."""
    if not any(section.level == 1 for section in sections(document)):
        first = next(section for section in sections(document) if section.heading or section.sentences)
        title = first.heading or " ".join(first.sentences[0].split()[:10])
        document = f"# {title}\n\n{document}"
    parts: list[str] = [""]
    fenced = False
    for line in document.splitlines():
        length = count_words(parts[-1])
        at_heading = line.startswith("#") and not fenced
        if (at_heading and length >= words) or (not line.strip() and length >= 3 * words):
            parts.append("")
        fenced ^= line.startswith("```")
        parts[-1] += line + "\n"
    return [part for part in parts if any(section.sentences for section in sections(part))]


def advice(remarks: str) -> list[str]:
    """Give the lines of the editor's remarks that a writer can act on."""
    lines = (line.strip().removeprefix("- ") for line in remarks.splitlines())
    return [line for line in lines if line.startswith(("consider:", "redundant:"))]


def better(best: dict[str, Any] | None, draft: str, verdict: Review, round_: int) -> dict[str, Any]:
    """Keep the draft with the higher score, the later one when they are equal."""
    if best and best["score"] > verdict.score and not verdict.passed:
        return best
    return {"draft": draft, "score": verdict.score, "problems": list(verdict.problems), "round": round_}


def printed(best: dict[str, Any], *, rounds: int) -> dict[str, Any]:
    """Give the run's output; `remark` says so when the gate never passed."""
    accepted = not best["problems"]
    return {
        "article": best["draft"],
        "words": count_words(" ".join(s for part in sections(best["draft"]) for s in part.sentences)),
        "rounds": rounds,
        "score": best["score"],
        "accepted": accepted,
        "problems": best["problems"],
        "remark": ""
        if accepted
        else f"the gate did not pass in {rounds} rounds; this is draft {best['round']}, "
        f"problems left: {len(best['problems'])}",
    }


fleet = build(
    os.environ.get("TECHREVATI_DEMO_MODEL", "offline"),
    float(os.environ.get("TECHREVATI_DEMO_LATENCY", "0.3")),
)
