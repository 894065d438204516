"""The limits that a provider tells of, as the whole fleet's."""

from dataclasses import replace

import pytest

from techrevati.store.gates import (
    BucketSpec,
    CostTooLarge,
    DeclarationsDiffer,
    GateRefused,
    GateSpec,
)
from tests.integration.store.hall import Hall, rate


def test_a_lower_limit_of_the_provider_holds_for_everyone_and_none_above_what_is_declared(hall: Hall) -> None:
    spec = rate(BucketSpec.per_minute("rpm", 600), BucketSpec("input_tpm", 1000, 10))
    one, other = hall.gate(spec), hall.gate(spec, "w2")
    other.admit({"rpm": 1})
    one.feed(limit={"rpm": 60, "input_tpm": 5000, "nonsense": 1})
    other.admit({"rpm": 20})
    lower = (BucketSpec("input_tpm", 1000, 10), BucketSpec.per_minute("rpm", 60))
    assert one.spec.buckets == other.spec.buckets == lower
    assert one.look().levels["rpm"] == pytest.approx(40), "what it held is no more than it holds now"
    with pytest.raises(GateRefused) as refused:
        other.admit({"rpm": 50})
    assert refused.value.wait == pytest.approx(10), "and it fills as the provider says"
    with pytest.raises(CostTooLarge):
        other.admit({"rpm": 61})
    assert next(event.why for event in hall.events if isinstance(event, DeclarationsDiffer)) == "the provider says so"
    trips = one.core.trips
    one.feed(limit={"rpm": 60})
    assert one.core.trips == trips + 1, "the same again changes nothing"
    other.feed(limit={"rpm": 120})
    one.admit({"rpm": 1})
    assert one.spec.bucket("rpm") == BucketSpec.per_minute("rpm", 120)
    other.feed(limit={"rpm": 10_000})
    one.admit({"rpm": 1})
    assert one.spec.bucket("rpm") == BucketSpec.per_minute("rpm", 600)


@pytest.mark.parametrize(("mode", "holds"), [("follow", 10_000), ("ignore", 600), ("lower", 600)])
def test_a_higher_limit_of_the_provider_holds_where_it_is_declared_to(mode: str, holds: float, hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec.per_minute("rpm", 600), provider_limits=mode))
    gate.feed(limit={"rpm": 10_000})
    gate.admit({"rpm": 1})
    assert gate.spec.bucket("rpm") == BucketSpec.per_minute("rpm", holds)
    gate.feed(limit={"rpm": 60})
    gate.admit({"rpm": 1})
    assert gate.spec.bucket("rpm") == BucketSpec.per_minute("rpm", 600 if mode == "ignore" else 60)


def test_a_process_of_an_older_release_may_lower_a_limit_and_not_raise_it(hall: Hall) -> None:
    new = hall.gate(rate(BucketSpec.per_minute("rpm", 300), revision=2), "new")
    old = hall.gate(rate(BucketSpec.per_minute("rpm", 600), revision=1), "old")
    new.admit()
    old.feed(limit={"rpm": 500})
    new.admit()
    assert new.spec.bucket("rpm") == BucketSpec.per_minute("rpm", 300)
    old.feed(limit={"rpm": 60})
    new.admit({"rpm": 1})
    assert (new.spec.bucket("rpm"), new.spec.revision) == (BucketSpec.per_minute("rpm", 60), 2)


def test_who_starts_later_takes_over_what_the_provider_told_the_others(hall: Hall) -> None:
    def declared(rpm: float, own: float = 5) -> GateSpec:
        return rate(BucketSpec.per_minute("rpm", rpm), BucketSpec("tpm", 1000, 50), BucketSpec("own", own, 1))

    first = hall.gate(declared(600))
    first.feed(limit={"rpm": 60, "tpm": 1200})
    lower = {
        "rpm": BucketSpec.per_minute("rpm", 60),
        "tpm": BucketSpec("tpm", 1000, 20),
        "own": BucketSpec("own", 5, 1),
    }
    second = hall.gate(declared(600), "w2")
    second.admit({"rpm": 1})
    assert {bucket.name: bucket for bucket in second.spec.buckets} == lower
    assert first.look().stands.by == "w2 by the provider's limits of rpm,tpm"
    # Another release may declare what it likes: of what the provider told, the lower holds, of all else its own.
    third = hall.gate(replace(declared(30, own=9), revision=1), "w3")
    third.admit({"rpm": 1})
    first.admit({"rpm": 1})
    assert {bucket.name: bucket for bucket in first.spec.buckets} == {
        **lower,
        "rpm": BucketSpec.per_minute("rpm", 30),
        "own": BucketSpec("own", 9, 1),
    }
