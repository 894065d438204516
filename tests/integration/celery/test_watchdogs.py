"""Faults a worker must notice by itself: a restarted Redis, a deaf consumer, a blocked loop."""

import signal

import pytest
from redis.exceptions import RedisError

from techrevati.fleet.celery.tickets import send_ticket
from techrevati.fleet.celery.watchdogs import EX_SOFTWARE
from techrevati.store.embedded import EmbeddedRedis
from tests.integration.celery.conftest import START, StartWorker, Worker, wait_until


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_worker_consumes_on_after_redis_restarts_under_load(
    start_worker: StartWorker, private_redis: EmbeddedRedis, sig: signal.Signals
) -> None:
    worker = start_worker(url=private_redis.url, stall=2)
    for number in range(300):
        worker.send("sample.nap", f"before{number}", 0.3)
    worker.wait_told("start before0", START)
    private_redis.restart(sig=sig)
    for number in range(50):
        _send_with_patience(worker, f"after{number}")
    wait_until(lambda: _ended(worker) >= 50, "all later tasks ended", START)
    assert worker.process.poll() is None


def _send_with_patience(worker: Worker, label: str) -> None:
    def sent() -> bool:
        try:
            worker.send("sample.nap", label, 0)
        except (RedisError, OSError):
            return False
        return True

    wait_until(sent, f"{label} sent")


def _ended(worker: Worker) -> int:
    return sum(line.startswith("end after") for line in worker.told())


def test_deaf_consumer_is_restarted_and_says_so(start_worker: StartWorker) -> None:
    worker = start_worker(deaf=1, stall=1).ready()
    worker.wait_log("gone deaf")
    send_ticket(worker.app, "writer", 1)
    worker.wait_log("consumer stall: 1 ready, 2000 free places")
    worker.wait_told("served writer 1 draining=False")
    worker.wait_log("consumer stall: tickets arrive again")


def test_stall_that_restarts_do_not_cure_ends_the_process(start_worker: StartWorker) -> None:
    worker = start_worker(deaf=100, stall=0.5)
    send_ticket(worker.app, "writer", 1)
    assert worker.wait_exit(30) == EX_SOFTWARE
    assert worker.log().count("restarting the consumer") == 3
    assert "giving up" in worker.log()
    assert worker.waiting() == 1


def test_blocked_loop_is_reported_and_ends_the_process(start_worker: StartWorker) -> None:
    worker = start_worker(lag_exit=1.5).ready()
    worker.send("sample.block", 60)
    assert worker.wait_exit(20) == EX_SOFTWARE
    log = worker.log()
    assert "a turn blocks it" in log
    assert 'sample_tasks.py", line' in log  # the stack names the culprit
