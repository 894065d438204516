"""What the desks decide; that they run is for the acceptance tests."""

from typing import Any

import pytest

from examples.conversation import Conversation, Done
from examples.triage.accounts import Accounts, account_in, oddities
from examples.triage.client import TICKET
from examples.triage.faults import Faults
from examples.triage.model import NO_CONCERN, NoDesk, next_step
from examples.triage.sorting import Sorter, learned
from techrevati.agent.tools import ToolError

SORTER = learned()


def chat(question: str, tool: str, *calls: Done) -> Conversation:
    return Conversation(question, calls, frozenset({tool}), 1)


def done(name: str, data: Any, **arguments: Any) -> Done:
    return Done("1", name, arguments, "success", data, "")


@pytest.mark.parametrize(
    ("sentence", "label"),
    [
        ("You charged my card for an invoice that I have paid.", "billing"),
        ("The update crashes.", "technical"),
        ("Best regards", "other"),
        ("Xyzzy!", "other"),
    ],
)
def test_a_sentence_is_sorted_by_what_was_learned(sentence: str, label: str) -> None:
    assert SORTER.label(sentence) == label


def test_what_is_learned_is_what_the_examples_say() -> None:
    swapped = Sorter([("billing", "The app crashes"), ("technical", "A wrong invoice"), ("other", "Regards")])
    assert (swapped.label("It crashes."), swapped.label("My invoice?")) == ("billing", "technical")


def test_the_front_sends_each_concern_with_the_account_to_its_desk() -> None:
    step = next_step(chat(TICKET, "agent_run"), SORTER)
    assert isinstance(step, list)
    assert [(name, arguments["agent_id"]) for name, arguments in step] == [
        ("agent_run", "billing"),
        ("agent_run", "technical"),
    ]
    assert all(str(arguments["prompt"]).startswith("Account A-1001. ") for _, arguments in step)
    assert "crashes" in str(step[1][1]["prompt"]) and "charged" not in str(step[1][1]["prompt"])


def test_the_front_answers_with_what_it_heard_and_says_who_was_silent() -> None:
    heard = done("agent_run", {"output": "All is well."}, agent_id="billing")
    silent = Done("2", "agent_run", {"agent_id": "technical"}, "error", None, "it was stopped")
    assert next_step(chat(TICKET, "agent_run", heard, silent), SORTER) == (
        "Billing: All is well.\n\nTechnical: nobody could answer (it was stopped); a person will."
    )


def test_a_ticket_without_a_concern_is_answered_by_the_front() -> None:
    assert next_step(chat("Best regards", "agent_run"), SORTER) == NO_CONCERN


def test_billing_finds_double_charges_and_prices_that_rose() -> None:
    accounts = Accounts()
    (double,) = oddities(accounts.invoices("A-1001"))
    assert double.startswith("R-531 charges Plan S, October a second time") and "19.00 is to be refunded" in double
    assert oddities(accounts.invoices("A-1002")) == [
        "R-532 (Plan L, October) is 10.00 more than R-502 (Plan L, September)."
    ]
    assert oddities(accounts.invoices("A-1001")[:2]) == []
    with pytest.raises(ToolError, match="no account 'A-9'"):
        accounts.invoices("A-9")


def test_billing_asks_for_the_account_if_there_is_none() -> None:
    assert account_in("It is A-1002, not A-10023.") == "A-1002"
    assert next_step(chat("I was charged twice.", "invoices"), SORTER) == (
        "Which account is it? Its number is like A-1001."
    )
    assert next_step(chat("A-1002: why?", "invoices"), SORTER) == [("invoices", {"account": "A-1002"})]
    fine = done("invoices", [], account="A-1002")
    assert next_step(chat("A-1002: why?", "invoices", fine), SORTER) == (
        "Every invoice of the account is as it should be."
    )


@pytest.mark.parametrize(
    ("symptom", "fault"),
    [
        ("Since the update to 4.2 the app crashes when I open it.", "The app crashes when it is opened"),
        ("My password is wrong after the update, I cannot log in", "Logging in fails"),
        ("Uploads of my large video end in a timeout.", "Uploads of large files"),
        ("Sync is stuck again", "Sync is stuck"),
    ],
)
def test_technical_knows_a_fault_by_its_symptom(symptom: str, fault: str) -> None:
    known = Faults().known(symptom, 3)
    assert known[0]["fault"].startswith(fault) and known[0]["remedy"]
    answer = next_step(chat(symptom, "known_faults", done("known_faults", known)), SORTER)
    assert answer == f"{known[0]['fault']}: {known[0]['remedy']}"


def test_technical_says_when_a_fault_is_new() -> None:
    assert Faults().known("The keyboard types nonsense.", 3) == []
    answer = next_step(chat("Nonsense", "known_faults", done("known_faults", [])), SORTER)
    assert answer == "This fault is new to us; it has been noted."


def test_the_tools_of_no_desk_are_refused_with_the_fix() -> None:
    with pytest.raises(NoDesk, match="fix: offer agent_run, invoices or known_faults"):
        next_step(chat("?", "shell"), SORTER)
