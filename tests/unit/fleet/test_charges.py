"""What a call counts as, once it has ended."""

import asyncio

import pytest

from techrevati.fleet.charges import answered, at_most, broke_off, costs, told, verdict
from techrevati.fleet.estimates import OUTPUT_TOKENS, Estimate, estimate
from techrevati.fleet.feedback import Allowance, Feedback
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.models import ModelReply, ModelRequest, RetryLater
from techrevati.fleet.sdks import NoProvider
from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.runtime.usage_tracking import UsageLimitExceededError
from techrevati.store.gates import BucketSpec, GateSpec

GUESS = Estimate(100, 50, 700)
SPEC = GateSpec.make("m", rpm=60, input_tpm=6000, output_tpm=600)


def test_an_answer_counts_as_what_the_provider_counted() -> None:
    charge = answered(ModelReply("so", 500, 20, 90, rated_input_tokens=400))
    assert (charge.made, charge.failure, charge.input_tokens, charge.rated, charge.cost_micros) == (
        True,
        "",
        500,
        400,
        90,
    )
    assert costs(SPEC, 1, charge.rated, charge.output_tokens) == {"rpm": 1, "input_tpm": 400, "output_tpm": 20}
    assert answered(ModelReply("so", 500, 20)).rated == 500


@pytest.mark.parametrize(
    ("error", "timed_out", "made", "failure"),
    [
        (ModelFailed("m", "llm_error", "no", 500), False, False, "llm_error"),
        (ModelFailed("m", "dependency_failed", "cut"), False, True, "dependency_failed"),
        (ModelFailed("m", "dependency_failed", "nobody there", made=False), False, False, "dependency_failed"),
        (TimeoutError(), False, True, "llm_timeout"),
        (ConnectionRefusedError(), False, False, "dependency_failed"),
        (RetryLater("m", 3.0), False, False, "rate_limit"),
        (NoProvider("openai", "no key"), False, False, "validation_error"),
        (asyncio.CancelledError(), False, True, None),
        (asyncio.CancelledError(), True, True, "llm_timeout"),
        (KeyboardInterrupt(), False, True, None),
    ],
)
def test_a_call_that_broke_off_costs_its_estimate_unless_it_was_not_made(
    error: BaseException, timed_out: bool, made: bool, failure: str | None
) -> None:
    charge = broke_off(error, GUESS, timed_out=timed_out)
    assert (charge.made, charge.failure) == (made, failure)
    assert (charge.input_tokens, charge.output_tokens, charge.cost_micros) == ((100, 50, 700) if made else (0, 0, 0))


def test_a_gate_hears_the_outcome_in_its_own_words() -> None:
    def heard(error: BaseException) -> tuple[str, AgentFailureClass | None]:
        return verdict(broke_off(error, GUESS, timed_out=False))

    assert verdict(answered(ModelReply("so"))) == ("ok", None)
    assert heard(asyncio.CancelledError()) == ("none", None)
    assert heard(TimeoutError()) == ("fail", AgentFailureClass.LLM_TIMEOUT)
    assert heard(UsageLimitExceededError("x", 2, 1)) == ("fail", AgentFailureClass.VALIDATION_ERROR)
    assert broke_off(RetryLater("m", 3.0), GUESS, timed_out=False).feedback.retry_after == 3.0


def test_an_estimate_never_keeps_a_call_out_for_good() -> None:
    assert at_most(costs(SPEC, 1, 99_999, 4096), SPEC) == {"rpm": 1, "input_tpm": 6000, "output_tpm": 600}
    assert costs(GateSpec(name="m"), 1, 5, 5) == {}
    both = GateSpec(name="m", buckets=(BucketSpec.per_minute("tpm", 100), BucketSpec.per_minute("images", 5)))
    assert costs(both, 1, 5, 7) == {"tpm": 12}


def test_only_what_presses_is_told_to_a_gate() -> None:
    plenty = Feedback(requests=Allowance(60, 50, 1.0), input_tokens=Allowance(6000, 5000))
    assert told(plenty, SPEC) is None and told(Feedback(), SPEC) is None
    said = told(Feedback(requests=Allowance(60, 3, 40.0), tokens=Allowance(6000, 10), retry_after=7.0), SPEC)
    assert said is not None and said.retry_after == 7.0
    assert (said.remaining, said.reset) == ({"rpm": 3.0, "input_tpm": 10.0}, {"rpm": 40.0})
    only = told(Feedback(retry_after=2.0), GateSpec(name="m"))
    assert only is not None and (only.retry_after, only.remaining) == (2.0, {})


def test_an_estimate_goes_by_the_size_of_the_prompt_and_what_the_answer_may_be() -> None:
    messages = [{"role": "user", "content": "x" * 4000}]
    assert 1000 < estimate("m", ModelRequest("m", messages)).input_tokens < 1020
    assert estimate("m", ModelRequest("m", messages)).output_tokens == OUTPUT_TOKENS
    assert estimate("m", ModelRequest("m", messages, {"max_completion_tokens": 9})).output_tokens == 9
    assert estimate("m", ModelRequest("m", messages, {"max_tokens": 7})).output_tokens == 7
    tools = {"tools": [{"type": "function", "function": {"name": "n" * 400}}]}
    assert estimate("m", ModelRequest("m", messages, tools)).input_tokens > 1100
