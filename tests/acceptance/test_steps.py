"""The journal of steps, across kill -9 and retries."""

import pytest

from techrevati.fleet.client import Client
from techrevati.fleet.results import RunFailed
from tests.acceptance.support import Cluster


def test_rerun_step_runs_again_after_a_crash_and_a_finished_one_does_not(cluster: Cluster) -> None:
    client = cluster.client("stepper")
    worker = cluster.worker("stepper")
    run = client.start("steps.stepper", {"gate": "never"})
    cluster.wait_told(f"second {run.id}")
    worker.kill()
    cluster.healthy()
    cluster.worker("stepper")
    assert run.result(timeout=15) == {"first": "done", "second": 2}
    assert cluster.told(f"first {run.id}") == [f"first {run.id} 1"]
    assert len(cluster.told(f"second {run.id}")) == 2
    assert "turn.expired" in [event.type for event in run.events()]


def test_once_step_is_never_run_again_and_says_so(cluster: Cluster) -> None:
    client = cluster.client("oncer")
    worker = cluster.worker("oncer")
    run = client.start("steps.oncer", {"gate": "never", "policy": "once"})
    cluster.wait_told(f"second {run.id}")
    worker.kill()
    cluster.worker("oncer")
    with pytest.raises(
        RunFailed, match=r"is dead: step 'step:second' .* may have taken effect.*is not run again"
    ) as told:
        run.result(timeout=15)
    assert told.value.error["type"] == "StepInDoubt"
    assert len(cluster.told(f"second {run.id}")) == 1
    assert len(cluster.told(f"first {run.id}")) == 1


def test_retried_turn_does_not_pay_the_model_twice(cluster: Cluster, client: Client) -> None:
    run = client.start("think.alpha", {"ask": "retried", "failures": 2})
    assert run.result(timeout=10) == {"text": "so it is: retried", "failures": 2}
    assert cluster.told("paid retried") == ["paid retried"]
    record = run.status()
    assert (record.input_tokens, record.output_tokens, record.cost_micros) == (10, 4, 70)


def test_killed_turn_does_not_pay_for_what_a_step_has_settled(cluster: Cluster) -> None:
    client = cluster.client("payer")
    worker = cluster.worker("payer")
    run = client.start("think.payer", {"ask": "killed", "gate": "never"})
    cluster.wait_told(f"thought {run.id}")
    worker.kill()
    cluster.worker("payer")
    assert run.result(timeout=15)["text"] == "so it is: killed"
    assert cluster.told("paid killed") == ["paid killed"]


def test_pause_replays_what_came_before(cluster: Cluster, client: Client) -> None:
    run = client.start("pause.alpha", {"seconds": 1.5})
    assert run.result(timeout=10) == 1
    assert cluster.told(f"before {run.id}") == [f"before {run.id}"]
    assert "turn.parked" in [event.type for event in run.events()]
