"""What a call that has ended counts as: what it used, and what it says about the dependency.  Pure.

reply | error, seconds, timeout ──charge_of──▶ Charge ──▶ gate and budget settle
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from techrevati.fleet.estimates import Estimate
from techrevati.fleet.failures import classify
from techrevati.fleet.feedback import SILENT, Feedback
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.models import Costs, ModelReply, ModelRequest, RetryLater
from techrevati.fleet.sdks import NoProvider
from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.store.gates import FAIL, NONE, OK, GateSpec, UnknownBucket
from techrevati.store.gates.following import followed


@dataclass(frozen=True, slots=True)
class Charge:
    """Tokens, micro-dollars and the outcome of one call.

    Attributes:
        made: the provider worked on it; one that was refused costs nothing.
        failure: the runtime's failure class, "" for an answer, None where the call says nothing (it was cancelled).
        overloaded: the provider refused for load or limits.
        rated: input tokens that the provider's limits count.
    """

    made: bool
    failure: str | None
    overloaded: bool
    input_tokens: int
    output_tokens: int
    rated: int
    cost_micros: int
    feedback: Feedback = SILENT


NOT_MADE = Charge(False, None, False, 0, 0, 0, 0)


def answered(reply: ModelReply) -> Charge:
    """Give what an answer counts as."""
    rated = reply.input_tokens if reply.rated_input_tokens is None else reply.rated_input_tokens
    return Charge(True, "", False, reply.input_tokens, reply.output_tokens, rated, reply.cost_micros, reply.feedback)


def broke_off(error: BaseException, guess: Estimate, *, timed_out: bool) -> Charge:
    """Give what a call counts as that gave no answer.

    One that was not made, or was refused, costs nothing.  Any other may have been worked on to its end, and counts as
    what was estimated.  `timed_out`: cancelled when its time was up, whoever noticed first.
    """
    failure: str | None = None
    feedback, overloaded, made = SILENT, False, True
    if isinstance(error, asyncio.CancelledError):
        failure = "llm_timeout" if timed_out else None
    elif isinstance(error, Exception):
        failure = classify(error)
    match error:
        case ModelFailed():
            feedback, overloaded, made = error.feedback, error.throttled, error.made
        case RetryLater():
            feedback, overloaded, made = Feedback(retry_after=error.seconds), True, False
        case NoProvider() | ConnectionRefusedError():
            made = False
    if not made:
        return Charge(False, failure, overloaded, 0, 0, 0, 0, feedback)
    asked, output = guess.input_tokens, guess.output_tokens
    return Charge(True, failure, overloaded, asked, output, asked, guess.cost_micros, feedback)


def costs(spec: GateSpec, requests: int, input_tokens: int, output_tokens: int) -> dict[str, float]:
    """Give what a call costs each bucket that a model's gate may have."""
    amounts = {
        "rpm": requests,
        "input_tpm": input_tokens,
        "output_tpm": output_tokens,
        "tpm": input_tokens + output_tokens,
    }
    return {bucket.name: amounts[bucket.name] for bucket in spec.buckets if bucket.name in amounts}


def own_costs(spec: GateSpec, told: Costs, request: ModelRequest) -> dict[str, float]:
    """Give what an author says that a call costs buckets, of his own or of ours.

    Raises:
        UnknownBucket: the gate has no such bucket.
    """
    if unknown := [name for name in told if spec.bucket(name) is None]:
        raise UnknownBucket(spec.name, unknown[0], tuple(bucket.name for bucket in spec.buckets))
    return {name: cost(request) if callable(cost) else cost for name, cost in told.items()}


def at_most(asked: Mapping[str, float], spec: GateSpec) -> dict[str, float]:
    """Give the costs, none above what its bucket ever holds: an estimate must not keep a call out for good."""
    holds = {bucket.name: bucket.capacity for bucket in spec.buckets}
    return {name: min(cost, holds[name]) for name, cost in asked.items()}


def verdict(charge: Charge) -> tuple[str, AgentFailureClass | None]:
    """Give what a call says of the dependency, in a gate's words."""
    if charge.failure is None:
        return NONE, None
    if not charge.failure:
        return OK, None
    try:
        return FAIL, AgentFailureClass(charge.failure)
    except ValueError:  # the fleet's own classes are about what was asked
        return FAIL, AgentFailureClass.VALIDATION_ERROR


PRESSING = 0.2
"""A limit with more than this share left says nothing that the gate should hear."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a provider said, as `AsyncGate.feed` takes it."""

    retry_after: float | None
    remaining: Mapping[str, float]
    reset: Mapping[str, float]
    limit: Mapping[str, float] = field(default_factory=dict)


def told(feedback: Feedback, spec: GateSpec, own: GateSpec | None = None) -> Told | None:
    """Give what a gate is to be told, or None: plenty is left, which its own account knows better.

    `spec` is what stands, `own` what this process has declared: of limits, only one that changes what stands is told.
    """
    names = {bucket.name for bucket in spec.buckets}
    said = {
        "rpm": feedback.requests,
        "input_tpm": feedback.input_tokens,
        "output_tpm": feedback.output_tokens,
        "tpm" if "tpm" in names else "input_tpm": feedback.tokens or feedback.input_tokens,
    }
    pressing = {
        name: limit
        for name, limit in said.items()
        if name in names
        and limit is not None
        and limit.remaining is not None
        and (limit.limit is None or limit.remaining <= PRESSING * limit.limit)
    }
    limits = {
        name: float(limit.limit) for name, limit in said.items() if name in names and limit is not None and limit.limit
    }
    if limits and followed(spec, own or spec, limits) is None:
        limits = {}
    if not pressing and not limits and feedback.retry_after is None:
        return None
    return Told(
        feedback.retry_after,
        {name: float(limit.remaining or 0) for name, limit in pressing.items()},
        {name: limit.reset for name, limit in pressing.items() if limit.reset is not None},
        limits,
    )
