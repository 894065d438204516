"""Warm, soft and cold shutdown of a worker process."""

import json
import signal
import time

from tests.integration.celery.conftest import StartWorker


def test_sigterm_waits_for_turns_and_takes_no_more(start_worker: StartWorker) -> None:
    worker = start_worker(concurrency=1)
    worker.send("sample.nap", "running", 1.0)
    worker.send("sample.nap", "queued", 1.0)
    worker.wait_told("start running", 30)
    worker.signal(signal.SIGTERM)
    assert worker.wait_exit() == 0
    assert worker.told() == ["start running", "end running"]
    assert worker.waiting() == 1


def test_sigquit_finishes_short_turns_and_requeues_long_ones(start_worker: StartWorker) -> None:
    worker = start_worker(soft=1.0)
    worker.send("sample.nap", "short", 0.6)
    worker.send("sample.nap", "long", 60)
    worker.wait_told("start short", 30)
    worker.wait_told("start long")
    worker.signal(signal.SIGQUIT)
    worker.wait_exit()
    assert worker.told()[2:] == ["end short", "cancelled long"]
    assert worker.waiting() == 1
    message = json.loads(str(worker.redis.lindex(worker.queue, 0)))
    assert json.loads(message["body"])[0] == ["long", 60]


def test_soft_shutdown_ends_with_the_last_turn(start_worker: StartWorker) -> None:
    worker = start_worker(soft=30.0)
    worker.send("sample.nap", "short", 0.5)
    worker.wait_told("start short", 30)
    began = time.monotonic()
    worker.signal(signal.SIGQUIT)
    worker.wait_exit()
    assert time.monotonic() - began < 5
    assert worker.told()[-1] == "end short"
    assert worker.waiting() == 0


def test_cold_shutdown_leaves_a_turn_that_will_not_stop(start_worker: StartWorker) -> None:
    worker = start_worker(soft=0)
    worker.send("sample.stubborn", 60)
    worker.wait_log("sample.stubborn", 30)
    began = time.monotonic()
    worker.signal(signal.SIGQUIT)
    worker.wait_exit(20)
    assert time.monotonic() - began < 12
    assert worker.waiting() == 1
