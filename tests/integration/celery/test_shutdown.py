"""Warm, soft and cold shutdown of a worker process."""

import json
import signal
import time

from techrevati.fleet.celery.tickets import capture_template
from tests.integration.celery.conftest import START, StartWorker


def test_sigterm_waits_for_turns_and_takes_no_more(start_worker: StartWorker) -> None:
    worker = start_worker(concurrency=1)
    worker.send("sample.nap", "running", 1.0)
    worker.send("sample.nap", "queued", 1.0)
    worker.wait_told("start running", START)
    worker.signal(signal.SIGTERM)
    assert worker.wait_exit() == 0
    assert worker.told() == ["start running", "end running"]
    assert worker.waiting() == 1


def test_sigquit_finishes_short_turns_and_requeues_long_ones(start_worker: StartWorker) -> None:
    worker = start_worker(soft=1.0)
    worker.send("sample.nap", "short", 0.6)
    worker.send("sample.nap", "long", 60)
    worker.wait_told("start short", START)
    worker.wait_told("start long")
    worker.signal(signal.SIGQUIT)
    worker.wait_exit()
    assert worker.told()[2:] == ["end short", "cancelled long"]
    assert worker.waiting() == 1
    message = json.loads(str(worker.redis.lindex(worker.queue, 0)))
    assert json.loads(message["body"])[0] == ["long", 60]


def test_sigquit_after_sigterm_stops_waiting(start_worker: StartWorker) -> None:
    worker = start_worker(soft=0.2)
    worker.send("sample.nap", "long", 60)
    worker.wait_told("start long", START)
    worker.signal(signal.SIGTERM)
    worker.wait_log("Warm shutdown")
    worker.signal(signal.SIGQUIT)
    worker.wait_exit()
    assert worker.told() == ["start long", "cancelled long"]
    assert worker.waiting() == 1


def test_shutdown_under_load_loses_no_ticket(start_worker: StartWorker) -> None:
    worker = start_worker()
    template, total = capture_template(worker.app, "writer", 1), 3000
    for number in range(total):
        worker.redis.lpush(template.queue, template.fill(f"1-{number}"))
        if number == 300:
            worker.wait_told("served writer 1 draining=False", START)
        if number == 1000:
            worker.signal(signal.SIGTERM)
    assert worker.wait_exit() == 0
    assert 0 < len(worker.told()) < total
    assert len(worker.told()) + worker.waiting() == total


def test_sync_task_that_hangs_does_not_hold_a_cold_shutdown(start_worker: StartWorker) -> None:
    worker = start_worker(soft=0)
    worker.send("sample.plain", "hang")
    worker.wait_told("plain hang on techrevati-sync_0", START)
    worker.signal(signal.SIGQUIT)
    worker.wait_exit()
    assert worker.waiting() == 1


def test_soft_shutdown_ends_with_the_last_turn(start_worker: StartWorker) -> None:
    worker = start_worker(soft=30.0)
    worker.send("sample.nap", "short", 0.5)
    worker.wait_told("start short", START)
    began = time.monotonic()
    worker.signal(signal.SIGQUIT)
    worker.wait_exit()
    assert time.monotonic() - began < 5
    assert worker.told()[-1] == "end short"
    assert worker.waiting() == 0


def test_cold_shutdown_leaves_a_turn_that_will_not_stop(start_worker: StartWorker) -> None:
    worker = start_worker(soft=0)
    worker.send("sample.stubborn", 60)
    worker.wait_log("sample.stubborn", START)
    began = time.monotonic()
    worker.signal(signal.SIGQUIT)
    worker.wait_exit(20)
    assert time.monotonic() - began < 12
    assert worker.waiting() == 1
