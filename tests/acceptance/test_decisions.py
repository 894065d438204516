"""Suspension and decisions: from anywhere, in any order, exactly once."""

import subprocess
import sys

import pytest

from techrevati.fleet.client import Client, Run
from techrevati.store.errors import AlreadyDecided, RunEnded, UnknownCall
from tests.acceptance.agents import FLEET
from tests.acceptance.support import ROOT, Cluster, eventually


def waits_for_decision(run: Run) -> bool:
    record = run.status()
    return record.status == "waiting" and record.why == "decision"


def test_decision_from_another_process_while_no_worker_lives(cluster: Cluster) -> None:
    client = cluster.client("asker")
    worker = cluster.worker("asker")
    run = client.start("ask.asker", {})
    late = client.start("ask.asker", {"expires": 1.0})
    eventually(lambda: waits_for_decision(run) and waits_for_decision(late), "the runs wait")
    assert run.status().waits_for == [{"call_id": "ok", "payload": {"question": "publish?"}, "expires_in": None}]
    worker.kill()
    code = (
        "import sys; from techrevati.fleet.client import Client; "
        "c = Client(sys.argv[1], fleet=sys.argv[2]); print(c.run(sys.argv[3]).decide('ok', payload={'by': 'kim'}))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, cluster.redis.url, FLEET, run.id],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert said.stdout.strip() == "True"
    cluster.healthy()
    eventually(lambda: late.status().status == "queued", "the default is decided without a worker")
    with pytest.raises(AlreadyDecided):
        late.decide("ok", payload="too late")
    cluster.worker("asker")
    assert late.result(timeout=10) == {"action": "resume", "payload": "so", "expired": True, "turn": 2}
    assert run.result(timeout=10) == {"action": "resume", "payload": {"by": "kim"}, "expired": False, "turn": 2}


def test_no_answer_in_time_is_the_default_answer(client: Client) -> None:
    run = client.start("ask.alpha", {"expires": 0.4})
    assert run.result(timeout=10) == {"action": "resume", "payload": "so", "expired": True, "turn": 2}
    with pytest.raises(RunEnded, match="completed already"):
        run.decide("ok")


def test_wrong_and_second_decisions_are_refused(client: Client) -> None:
    run = client.start("ask.alpha", {})
    eventually(lambda: waits_for_decision(run), "the run waits")
    with pytest.raises(UnknownCall, match="'okay'"):
        run.decide("okay")
    assert run.decide("ok", "cancel", decision_id="d1") is True
    try:
        assert run.decide("ok", "cancel", decision_id="d1") is False
        with pytest.raises(AlreadyDecided, match="'ok'"):
            run.decide("ok", payload="other", decision_id="d2")
    except RunEnded:
        pass  # the run was quicker than we
    assert run.result(timeout=10)["action"] == "cancel"


def test_racing_decisions_have_one_winner(client: Client) -> None:
    run = client.start("ask.alpha", {})
    eventually(lambda: waits_for_decision(run), "the run waits")
    wins = []
    for number in range(5):
        try:
            run.decide("ok", payload=number)
            wins.append(number)
        except (AlreadyDecided, RunEnded):
            pass
    assert wins == [0]
    assert run.result(timeout=10)["payload"] == 0


def test_decision_that_lands_while_the_turn_runs_is_not_lost(cluster: Cluster, client: Client) -> None:
    run = client.start("hold.alpha", {"gate": "early-word", "suspend": True})
    cluster.wait_told(f"hold {run.id}")
    run.decide("ok", payload="early")
    cluster.open("early-word")
    assert run.result(timeout=10)["decided"] == {"ok": "early"}


def test_steering_reaches_the_live_run(client: Client) -> None:
    run = client.start("steer.alpha", {})
    run.steer("left, please")
    output = run.result(timeout=10)
    assert output["said"] == [{"role": "user", "content": "left, please"}] == [output["last"]]
