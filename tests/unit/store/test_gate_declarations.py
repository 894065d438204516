"""What a gate refuses to be declared as, or to be asked for: each names the thing, its value and the fix."""

import pickle

import pytest

from techrevati.store.errors import BadName
from techrevati.store.gates import (
    BadCost,
    BadGate,
    BreakerSpec,
    BucketSpec,
    CostTooLarge,
    GateRefused,
    GateSpec,
    SlotSpec,
    UnknownBucket,
)
from techrevati.store.gates.keys import GateKeys
from techrevati.store.gates.terms import Terms

KEYS = GateKeys("newsroom", "openai:m")
SPEC = GateSpec(name="openai:m", buckets=(BucketSpec("rpm", 10, 1), BucketSpec("input_tpm", 100, 10)))
TERMS = Terms(KEYS, SPEC, "v", 0)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("limit", [0, -1, -0.5, NAN, INF, "60", None, True])
def test_a_limit_that_is_no_number_above_zero_is_refused(limit: float) -> None:
    for declare in (
        lambda: BucketSpec("rpm", limit, 1),
        lambda: BucketSpec("rpm", 1, limit),
        lambda: BucketSpec.per_minute("rpm", limit),
        lambda: GateSpec.make("m", rpm=limit),
    ):
        with pytest.raises(BadGate) as refused:
            declare()
        said = str(refused.value)
        assert "'rpm'" in said and repr(limit) in said and "use a number above 0" in said


@pytest.mark.parametrize("slots", [0, -3, 1.5, True])
def test_slots_are_a_whole_number_from_one_up(slots: int) -> None:
    with pytest.raises(BadGate, match=r"slots = .* is refused: use a whole number, 1 or more"):
        SlotSpec(most=slots)
    with pytest.raises(BadGate):
        GateSpec.make("m", concurrency=slots)


def test_a_threshold_of_nothing_is_refused() -> None:
    with pytest.raises(BadGate, match="failure_threshold = 0 is refused: use a whole number, 1 or more"):
        GateSpec.make("m", failure_threshold=0)
    for rule in ({"cooldown": 0}, {"failure_rate": 1.1}, {"probes": 0}, {"ramp": (0.0,)}, {"cooldown_factor": 0.5}):
        with pytest.raises(BadGate):
            BreakerSpec(**rule)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(BadGate, match="share of tenant 'acme'"):
        GateSpec(name="m", shares={"acme": 0})


def test_a_dimension_that_the_gate_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(UnknownBucket) as refused:
        TERMS.check({"output_tpm": 1})
    assert str(refused.value) == (
        "gate 'openai:m' has no bucket 'output_tpm'; fix: declare it, or use one it has: input_tpm, rpm"
    )


def test_a_cost_above_capacity_names_bucket_cost_capacity_and_the_fix() -> None:
    with pytest.raises(CostTooLarge) as refused:
        TERMS.check({"rpm": 1, "input_tpm": 101})
    error = refused.value
    assert (error.gate, error.bucket, error.cost, error.capacity) == ("openai:m", "input_tpm", 101, 100)
    assert str(error) == (
        "gate 'openai:m': a cost of 101 is over the capacity 100 of bucket 'input_tpm'; "
        "fix: split the call, or raise the limit"
    )


@pytest.mark.parametrize("cost", [-1.0, NAN, INF, True, "3"])
def test_a_cost_that_is_no_number_from_zero_up_is_refused(cost: float) -> None:
    with pytest.raises(BadCost, match="use a number, 0 or more"):
        TERMS.check({"rpm": cost})


@pytest.mark.parametrize("name", ["a{b", "a}b", "{", "a\nb", "\x00", ""])
def test_a_name_that_could_not_be_a_hash_tag_is_refused(name: str) -> None:
    with pytest.raises(BadName, match="use 1-200 bytes without braces or control characters"):
        GateSpec(name=name)
    with pytest.raises(BadName):
        GateKeys("newsroom", name)


def test_a_name_has_at_most_200_bytes() -> None:
    for longest in ("x" * 200, "é" * 100):
        assert GateSpec(name=longest).name == longest
        for longer in (longest + "x", "x" + longest):
            with pytest.raises(BadName, match="1-200 bytes"):
                GateSpec(name=longer)


@pytest.mark.parametrize("bucket", ["", "a b", "a=1", "a,b", "x" * 65])
def test_a_bucket_is_named_so_that_a_booking_can_tell_of_it(bucket: str) -> None:
    with pytest.raises(BadName):
        BucketSpec(bucket, 1, 1)


def test_buckets_of_one_name_are_refused() -> None:
    with pytest.raises(BadGate, match="one bucket of each name"):
        GateSpec(name="m", buckets=(BucketSpec("rpm", 1, 1), BucketSpec("rpm", 2, 1)))


def test_errors_survive_the_broker() -> None:
    for error in (
        GateRefused("m", "slots", 1.5, True),
        CostTooLarge("m", "rpm", 2, 1),
        UnknownBucket("m", "rpm", ("a",)),
        BadCost("m", "rpm", -1),
        BadGate("limit", 0, "a number above 0"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.args, str(again)) == (type(error), error.args, str(error))
    told = pickle.loads(pickle.dumps(GateRefused("m", "slots", 1.5, True)))
    assert (told.gate, told.why, told.wait, told.booked) == ("m", "slots", 1.5, True)
