"""Eight processes spend while Redis is killed; the long run is ``python -m tests.chaos.budgets``."""

from tests.chaos.budgets import hammer


def test_eight_processes_and_a_restart_overspend_not_a_micro_dollar() -> None:
    outcome = hammer(processes=8, calls=120, restarts=1, timeout=120)
    assert outcome.over == []
    assert outcome.committed == outcome.said
    assert outcome.refused > 0
    assert outcome.is_sound
    assert (outcome.restarts, outcome.killed) == (1, True)
    assert outcome.looks > 10
