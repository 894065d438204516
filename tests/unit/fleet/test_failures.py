"""What a failed turn deserves."""

import pytest

from techrevati.fleet.calling import Refused
from techrevati.fleet.failures import Retry, TurnTimedOut, UnknownAgent, classify, describe
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.models import RetryLater, UnknownModel
from techrevati.fleet.sdks import NoProvider
from techrevati.store.budgets import BudgetRefused
from techrevati.store.errors import NotJson, PayloadTooLarge, StepInDoubt
from techrevati.store.gates import CostTooLarge, GateRefused


class Http(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status_code = status


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (StepInDoubt("r", "s"), "step_in_doubt"),
        (NotJson("x", "set"), "validation_error"),
        (PayloadTooLarge("x", 2, 1), "validation_error"),
        (UnknownModel("m", ()), "validation_error"),
        (UnknownAgent("a", ()), "validation_error"),
        (RetryLater("m", 1), "rate_limit"),
        (TurnTimedOut("r", 1), "llm_timeout"),
        (TimeoutError(), "llm_timeout"),
        (ConnectionResetError(), "dependency_failed"),
        (Http(429), "rate_limit"),
        (Http(408), "llm_timeout"),
        (Http(504), "llm_timeout"),
        (Http(500), "llm_error"),
        (Http(400), "prompt_rejection"),
        (Http(401), "validation_error"),
        (Http(302), "llm_error"),
        (KeyError("x"), "llm_error"),
        (ModelFailed("m", "context_overflow", "too long", 400), "context_overflow"),
        (NoProvider("openai", "no key"), "validation_error"),
        (Refused("m", "rate", 3.0), "rate_limit"),
        (GateRefused("m", "forced", None), "dependency_failed"),
        (CostTooLarge("m", "rpm", 9, 1), "validation_error"),
        (BudgetRefused("acme", "tenant", "usd.day", 5, 4, 1, 2), "limit_exceeded"),
    ],
)
def test_failures_are_classed_by_type_and_status(error: Exception, failure: str) -> None:
    assert classify(error) == failure


def test_waits_double_up_to_the_cap_and_are_jittered() -> None:
    retry = Retry(tries=10, base=1, cap=5)
    assert [retry.after("unknown", n, draw=1.0) for n in range(1, 6)] == [1, 2, 4, 5, 5]
    assert retry.after("unknown", 3, draw=0.0) == 2


def test_tries_are_spent_and_lasting_failures_get_one() -> None:
    retry = Retry(tries=3, per_class={"rate_limit": 9})
    assert retry.after("unknown", 2) is not None and retry.after("unknown", 3) is None
    assert retry.after("validation_error", 1) is None
    assert retry.after("rate_limit", 8) is not None and retry.after("rate_limit", 9) is None


def test_what_a_provider_asks_is_a_lower_bound() -> None:
    assert Retry(base=0.1).after("rate_limit", 1, asked=7.0) == 7.0
    assert Retry(base=10, cap=10).after("rate_limit", 1, asked=1.0, draw=0.0) == 5.0


def test_many_failures_do_not_overflow() -> None:
    assert Retry(tries=10_000, cap=60).after("unknown", 5_000, draw=1.0) == 60


def test_an_error_is_kept_with_its_type_and_a_bounded_message() -> None:
    kept = describe(ValueError("x" * 9000), "unknown")
    assert (kept["type"], kept["failure"], len(kept["message"])) == ("ValueError", "unknown", 4000)
