"""``techrevati demo FILE``: three agents turn a document into an article, on this machine, for real.

embedded Redis + coordinator + one Celery worker per role ─▶ one session ─▶ its events, drawn live
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.rule import Rule

from techrevati.cli.local import LocalFleet
from techrevati.cli.progress import ProgressState, begin, fold
from techrevati.cli.view import plain_line, render, summary
from techrevati.fleet.client import Client, Run
from techrevati.fleet.results import RunFailed
from techrevati.runtime.errors import TechrevatiError
from techrevati.store.records import Event

TARGET, FLEET, ROLES = "examples.newsroom:fleet", "newsroom", ("researcher", "writer", "editor")


class NoExamples(TechrevatiError):
    """The demo's agents live in the repository, not in the installed package."""

    def __init__(self, places: tuple[str, ...]) -> None:
        super().__init__(places)
        self.places = places

    def __str__(self) -> str:
        return f"examples/newsroom.py is in none of {', '.join(self.places)}; fix: run the demo in a checkout"


class BadDocument(TechrevatiError):
    """The document cannot be read, or is none."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"document {self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    words: int = 450
    model: str = "offline"
    latency: float = 0.3
    url: str | None = None


def read_document(path: Path) -> str:
    """Give the text of a document.

    Raises:
        BadDocument: there is none, it is not text, or it is empty.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise BadDocument(str(path), "it is not UTF-8 text") from None
    except OSError as error:
        raise BadDocument(str(path), error.strerror or str(error)) from None
    if not text.strip():
        raise BadDocument(str(path), "it is empty")
    return text


def find_checkout(document: Path) -> Path:
    """Give the directory that holds the examples: here, or above the document.

    Raises:
        NoExamples.
    """
    places = [Path.cwd(), *document.resolve().parents]
    for place in places:
        if (place / "examples" / "newsroom.py").is_file():
            return place
    raise NoExamples((str(Path.cwd()), str(document.resolve().parent)))


def demo(document: Path, options: DemoOptions, console: Console) -> int:
    """Run the demo; gives the exit code."""
    text = read_document(document)
    environment = {"TECHREVATI_DEMO_MODEL": options.model, "TECHREVATI_DEMO_LATENCY": str(options.latency)}
    local = LocalFleet(
        TARGET, FLEET, ROLES, environment=environment, directory=find_checkout(document), url=options.url
    )
    begun = time.monotonic()
    with console.status("starting Redis, a coordinator and three Celery workers …"):
        try:
            local.start()
        except BaseException:
            local.close()
            raise
    try:
        console.print(f"{len(local.processes)} processes are up after {time.monotonic() - begun:.1f} s")
        with Client(local.url, fleet=FLEET) as client:
            run = client.start("researcher", {"document": text, "words": options.words})
            state = watch(local, run, console)
            try:
                output = run.result(timeout=5)
            except RunFailed as error:
                console.print(summary(state))
                console.print(f"[bold red]{error}[/]", highlight=False)
                return 1
        console.print(Rule("the article"))
        console.print(Markdown(output["article"]) if console.is_terminal else output["article"], highlight=False)
        if output.get("remark"):
            console.print(output["remark"])
        console.print(Rule())
        console.print(summary(state))
        return 0
    finally:
        with console.status("stopping …"):
            local.close()


def watch(local: LocalFleet, run: Run, console: Console) -> ProgressState:
    """Follow a run to its end, drawing it; gives what it looked like at last."""
    state = begin(ROLES)

    def followed() -> Iterator[Event]:
        for event in run.events():
            local.check()
            yield event

    if not console.is_terminal:
        for event in followed():
            state = fold(state, event.as_dict(), time.time())
            if line := plain_line(event.as_dict()):
                console.print(line, highlight=False)
        return state
    with Live(get_renderable=lambda: render(state, time.time()), console=console, refresh_per_second=10):
        for event in followed():
            state = fold(state, event.as_dict(), time.time())
    return state
