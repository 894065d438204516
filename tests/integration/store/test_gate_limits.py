"""What moves a gate from outside: leases of slots, an adaptive limit, what the provider says, other declarations."""

import pytest

from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.store.gates import (
    BucketSpec,
    CostTooLarge,
    DeclarationsDiffer,
    GateRefused,
    GateSpec,
    SlotSpec,
)
from tests.integration.store.hall import Hall, rate


def test_slots_are_leases(hall: Hall) -> None:
    spec = GateSpec(name="api", slots=SlotSpec(most=2), margin=5.0)
    gates = [hall.gate(spec, f"w{n}") for n in range(3)]
    held = [gate.admit(timeout=10) for gate in gates[:2]]
    with pytest.raises(GateRefused) as refused:
        gates[2].admit(timeout=10)
    assert refused.value.why == "slots"
    gates[0].settle(held[0])
    gates[2].admit(timeout=100)
    hall.now += 15.1  # the second died
    gates[0].admit()
    with pytest.raises(GateRefused):
        gates[1].admit()
    gates[1].settle(held[1])  # it was not dead: what it held is another's now
    with pytest.raises(GateRefused):
        gates[1].admit()


def test_an_adaptive_limit_halves_once_per_round_and_grows_back(hall: Hall) -> None:
    gate = hall.gate(GateSpec(name="api", slots=SlotSpec(most=16, least=2, adaptive=True)))
    held = [gate.admit() for _ in range(16)]
    hall.now += 1
    for admission in held[:8]:
        gate.settle(admission, outcome="fail", failure_class=AgentFailureClass.RATE_LIMIT)
    assert gate.look().slot_limit == 8
    for admission in held[8:]:
        gate.settle(admission)
    grown = gate.look().slot_limit
    for _ in range(40):
        held = [gate.admit() for _ in range(int(gate.look().slot_limit))]
        for admission in held:
            gate.settle(admission)
    assert grown < gate.look().slot_limit <= 16


def test_no_slot_is_held_while_tokens_are_waited_for(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 1, 1), slots=SlotSpec(most=1), horizon=60.0))
    gate.settle(gate.admit({"rpm": 1}))
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 1}, booking="r/1")
    assert (refused.value.why, refused.value.booked) == ("rate", True)
    assert gate.look().slots_used == 0
    gate.admit()  # costs nothing but the slot


def test_retry_after_holds_the_whole_fleet_and_lets_no_burst_follow(hall: Hall) -> None:
    one, other = (hall.gate(rate(BucketSpec("rpm", 10, 2)), worker) for worker in ("w1", "w2"))
    one.feed(retry_after=20)
    with pytest.raises(GateRefused) as refused:
        other.admit({"rpm": 1})
    assert refused.value.wait == pytest.approx(20.5)
    hall.now += 20.5
    other.admit({"rpm": 1})
    with pytest.raises(GateRefused):
        other.admit({"rpm": 1})


def test_remaining_and_reset_move_a_bucket_down_never_up(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 100, 10), BucketSpec("input_tpm", 1000, 10)))
    gate.feed(remaining={"rpm": 5})
    assert gate.look().levels == {"rpm": pytest.approx(5), "input_tpm": pytest.approx(1000)}
    gate.feed(remaining={"rpm": 80, "nonsense": 1})
    assert gate.look().levels["rpm"] == pytest.approx(5)
    gate.feed(reset={"rpm": 30})  # full again in 30 s, though we would refill in 10
    hall.now += 20
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 1})
    assert refused.value.wait == pytest.approx(0.1)


def test_reconfiguring_keeps_levels(hall: Hall) -> None:
    gate, other = (hall.gate(rate(BucketSpec("rpm", 100, 1)), worker) for worker in ("w1", "w2"))
    gate.admit({"rpm": 70})
    other.admit({"rpm": 10})
    gate.reconfigure(rate(BucketSpec("rpm", 50, 5), BucketSpec("input_tpm", 9, 1), revision=1))
    assert gate.look().levels == {"rpm": pytest.approx(20), "input_tpm": pytest.approx(9)}
    other.admit({"rpm": 20, "input_tpm": 1})  # the other takes the new declaration on its way
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 5})
    assert refused.value.wait == pytest.approx(1)


def test_two_declarations_are_told_apart_and_both_processes_hear_of_it(
    hall: Hall, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = hall.gate(rate(BucketSpec("rpm", 5, 1)), "old"), hall.gate(rate(BucketSpec("rpm", 50, 1)), "new")
    old.admit()
    new.admit({"rpm": 3})
    with pytest.raises(CostTooLarge):
        new.admit({"rpm": 51})
    old.admit({"rpm": 1})
    assert old.spec.buckets == new.spec.buckets == (BucketSpec("rpm", 50, 1),)
    differ = [event for event in hall.events if isinstance(event, DeclarationsDiffer)]
    assert [(event.stands_by, event.other_by) for event in differ] == [("new", "old"), ("new", "old")]
    assert [event.why for event in differ] == ["the newer declaration stands", "another process declared it"]
    assert '"capacity":50.0' in caplog.text and '"capacity":5.0' in caplog.text


def test_a_higher_revision_stands_whoever_comes_later(hall: Hall) -> None:
    hall.gate(rate(BucketSpec("rpm", 5, 1), revision=3)).admit()
    late = hall.gate(rate(BucketSpec("rpm", 50, 1), revision=2), "late")
    late.admit()
    assert late.spec.buckets == (BucketSpec("rpm", 5, 1),)
    assert [event.why for event in hall.events if isinstance(event, DeclarationsDiffer)] == ["a higher revision stands"]
