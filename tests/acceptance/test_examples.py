"""The examples of declared agents, run as their pages say: real workers, and their own clients as programs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.research.client import QUESTION, asked, shown
from examples.triage.client import TICKET
from examples.triage.model import NO_CONCERN
from techrevati.cli.local import LocalFleet
from techrevati.fleet import Client
from tests.acceptance.support import eventually
from tests.unit.project.documents import ROOT

TITLE = QUESTION.rstrip("?")


def program(local: LocalFleet, module: str, *arguments: str) -> str:
    """Run an example's client; gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "TECHREVATI_REDIS_URL": local.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def fleet(name: str, roles: list[str], directory: Path, url: str | None = None) -> LocalFleet:
    return LocalFleet(f"examples.{name}.app:fleet", name, roles, directory=directory, url=url)


@pytest.fixture(scope="module")
def paths() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TECHREVATI_REDIS_URL", raising=False)
        patch.delenv("TECHREVATI_DEMO_MODEL", raising=False)
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def research(paths: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalFleet, Path]]:
    directory = tmp_path_factory.mktemp("research")
    with fleet("research", ["researcher", "library"], directory) as local:
        yield local, directory / "published"


def test_research_publishes_what_was_shown_and_approved(research: tuple[LocalFleet, Path]) -> None:
    local, published = research
    said = program(local, "examples.research.client", "--yes")
    assert "Allow a call of 'publish'?" in said and f"# {TITLE}\n" in said
    assert "decided to give up leap seconds by 2035." in said
    (article,) = published.glob("*.md")
    assert said.splitlines()[-1] == f"Published: published/{article.name}"
    shown_text = said.partition(f"# {TITLE}\n\n")[2].partition("\n\n\nPublished")[0].strip()
    assert shown_text.startswith(article.read_text("utf-8").partition("\n\n")[2].strip())


def test_research_that_is_denied_publishes_nothing_and_says_the_article(research: tuple[LocalFleet, Path]) -> None:
    local, published = research
    question = "How accurate are quartz watches and atomic clocks?"
    said = program(local, "examples.research.client", question, "--no")
    result = said.partition("Not published")[2]
    assert "15 seconds a month" in result and "[quartz.md]" in result
    assert not list(published.glob("how-accurate*"))


def test_research_that_nobody_answers_is_left_waiting_for_another_client(research: tuple[LocalFleet, Path]) -> None:
    local, published = research
    question = "When was the first pendulum clock built?"
    said = program(local, "examples.research.client", question)
    assert "publish? [y/N]" in said and not list(published.glob("when-was*"))
    again = said.splitlines()[-1].removeprefix("it waits; go on with: python -m ").split()
    assert program(local, *again, "--yes").endswith("Published: published/when-was-the-first-pendulum-clock-built.md\n")
    assert "1656" in (published / "when-was-the-first-pendulum-clock-built.md").read_text("utf-8")


def test_research_searches_again_and_asks_nobody_before_it_wants_to_publish(research: tuple[LocalFleet, Path]) -> None:
    local, _ = research
    with Client(local.url, fleet="research") as client:
        run = client.start("researcher", QUESTION)
        call = asked(run, timeout=20)
        assert call is not None and TITLE in shown(call)
        calls = [event.data["name"] for event in run.events(follow=False) if event.type == "tool_call_ready"]
        assert calls[:2] == ["search", "search"]
        run.cancel()
        nothing = client.start("researcher", "What is the best recipe for bread?")
        assert asked(nothing, timeout=20) is None
        assert nothing.result(timeout=1).startswith("Nothing in the library answers")


def test_research_searches_in_a_pool_of_its_own(research: tuple[LocalFleet, Path]) -> None:
    local, _ = research
    with Client(local.url, fleet="research") as client:
        run = client.start("researcher", "What is the best recipe for bread?")
        run.result(timeout=20)
        events = list(run.events())
        sent = [event.data["agent"] for event in events if event.type == "call.started"]
        found = [event.data["result"] for event in events if event.type == "tool_call_done"]
        assert set(sent) == {"tool:search"} and len(found) == len(sent) and run.children() == []
        assert all(result["status"] == "success" for result in found)


def test_research_that_was_approved_while_no_worker_lived_goes_on_with_the_next(paths: None, tmp_path: Path) -> None:
    with fleet("research", [], tmp_path) as local, Client(local.url, fleet="research") as client:
        with fleet("research", ["researcher", "library"], tmp_path, local.url):
            run = client.start("researcher", QUESTION)
            call = asked(run, timeout=20)
        assert call is not None
        run.decide(call["call_id"])
        assert not (tmp_path / "published").exists()
        with fleet("research", ["researcher"], tmp_path, local.url):
            assert run.result(timeout=20).startswith("Published: ")
        assert len(list((tmp_path / "published").iterdir())) == 1


@pytest.fixture(scope="module")
def triage(paths: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    with fleet("triage", ["front", "billing", "technical"], tmp_path_factory.mktemp("triage")) as local:
        yield local


def test_triage_answers_a_ticket_with_what_both_desks_found(triage: LocalFleet) -> None:
    said = program(triage, "examples.triage.client")
    assert "Billing: R-531 charges Plan S, October a second time: 19.00" in said
    assert "Technical: The app crashes when it is opened after the update to 4.2: Cached pages" in said
    assert said.count("completed, 2 turns, on sub-agent-") == 2


def test_triage_sends_each_concern_to_a_worker_of_its_own_pool(triage: LocalFleet) -> None:
    with Client(triage.url, fleet="triage") as client:
        run = client.start("front", TICKET)
        run.result(timeout=20)
        served = {}
        for kid in run.children():
            events = list(client.run(kid.run_id).events())
            workers = {event.data["worker"].partition("@")[0] for event in events if event.type == "turn.started"}
            served[kid.agent] = workers
        assert served == {"billing": {"billing"}, "technical": {"technical"}}


def test_triage_answers_by_itself_what_is_for_no_desk(triage: LocalFleet) -> None:
    with Client(triage.url, fleet="triage") as client:
        run = client.start("front", "Thank you, you helped me a lot.")
        assert run.result(timeout=20) == NO_CONCERN
        assert run.children() == []


def test_triage_waits_without_a_worker_for_a_desk_whose_pool_is_empty(paths: None, tmp_path: Path) -> None:
    with fleet("triage", ["front", "technical"], tmp_path) as local, Client(local.url, fleet="triage") as client:
        run = client.start("front", TICKET)

        def parked_for_billing() -> bool:
            ended = {kid.agent for kid in run.children() if kid.status == "completed"}
            record = run.status()
            return ended == {"technical"} and record.turn > 1 and (record.status, record.why) == ("waiting", "child")

        eventually(parked_for_billing, "one desk has answered, and the front waits for the other", 20)
        with fleet("triage", ["billing"], tmp_path, local.url):
            assert "Billing: R-531" in run.result(timeout=20)
