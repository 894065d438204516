"""One worker process on the asyncio pool: tickets, limits, revoke, failures, refusals."""

import json

from techrevati.fleet.celery.tickets import capture_template, role_queue, send_ticket
from tests.integration.celery.conftest import START, StartWorker, wait_until


def test_plain_command_line_gives_our_pool_queue_and_no_chatter(start_worker: StartWorker) -> None:
    worker = start_worker(concurrency=123).ready()
    log = worker.log()
    assert "concurrency: 123 (pool)" in log
    assert f".> {worker.queue} " in log
    assert "mingle" not in log
    clients = {client["cmd"] for client in worker.redis.client_list()}
    assert not clients & {"psubscribe", "subscribe"}  # neither gossip nor remote control


def test_filled_template_pushed_raw_is_executed(start_worker: StartWorker) -> None:
    worker = start_worker()
    template = capture_template(worker.app, "writer", 3)
    assert template.queue == worker.queue
    worker.redis.lpush(template.queue, template.fill("3-1"), template.fill("3-2"))
    send_ticket(worker.app, "writer", 4)
    worker.wait_told("served writer 4 draining=False", START)
    assert worker.told().count("served writer 3 draining=False") == 2


def test_template_is_what_apply_async_puts_on_the_wire(start_worker: StartWorker) -> None:
    worker = start_worker()
    worker.process.kill()  # nobody consumes: the queue is read by hand
    app = worker.app
    template = capture_template(app, "editor", 3)
    queue = template.queue
    app.tasks["techrevati.turn"].apply_async(("editor", 3), task_id="3-9", queue=role_queue(app.main, "editor"))
    sent = json.loads(str(worker.redis.rpop(queue)))
    filled = json.loads(template.fill("3-9"))
    assert sent["properties"].pop("delivery_tag") != filled["properties"].pop("delivery_tag")
    assert sent == filled


def test_limits_failures_and_refusals(start_worker: StartWorker) -> None:
    worker = start_worker(control=1).ready()
    # Failures are acknowledged and logged, and the worker goes on.
    worker.send("sample.fail", "first")
    worker.wait_log("RuntimeError('on purpose: first')")
    # Soft limit: the task is told by cancellation, its turn ends as a failure.
    worker.send("sample.nap", "soft", 30, soft_time_limit=0.3)
    worker.wait_told("cancelled soft")
    worker.wait_log("Soft time limit (0.3s) exceeded")
    worker.wait_log("SoftTimeLimitExceeded")
    # Hard limit: the place is free although the task does not heed it.
    worker.send("sample.stubborn", 2.0, time_limit=0.3)
    worker.wait_log("Hard time limit (0.3s) exceeded")
    worker.wait_told("shrug")
    # Revoke: cancelled at once.
    task_id = worker.send("sample.nap", "revoked", 30)
    worker.wait_told("start revoked")
    inspect = worker.app.control.inspect(timeout=2, limit=1)
    (active,) = inspect.active().values()
    assert [(task["id"], task["args"]) for task in active] == [(task_id, ["revoked", 30])]
    worker.app.control.revoke(task_id, terminate=True)
    worker.wait_told("cancelled revoked")
    (stats,) = inspect.stats().values()
    assert stats["total"] == {"sample.fail": 1, "sample.nap": 2, "sample.stubborn": 1}
    # Revoked before it came.
    worker.app.control.revoke("never", reply=True, timeout=2, limit=1)
    worker.send("sample.nap", "never", 30, task_id="never")
    worker.wait_log("Discarding revoked task: sample.nap[never]")
    # Canvas by the back door.
    link = worker.app.signature("sample.plain", args=("linked",))
    worker.app.send_task("sample.nap", ("canvas", 0), queue=worker.app.conf.task_queues[0], link=link)
    worker.wait_log("task sample.nap takes no callbacks")
    # Plain functions run in threads, by the stock tracer.
    worker.send("sample.plain", "sync")
    worker.wait_told("plain sync on techrevati-sync_0")
    wait_until(lambda: not any(inspect.active().values()), "nothing active")
    assert "start canvas" not in worker.told()
    assert worker.waiting() == 0


def test_two_thousand_sleepers_in_one_process(start_worker: StartWorker) -> None:
    worker = start_worker(concurrency=2000)
    queue, total = worker.app.conf.task_queues[0], 2000
    with worker.app.pool.acquire() as connection, worker.app.amqp.Producer(connection) as producer:
        for _ in range(total):
            worker.app.tasks["sample.crowd"].apply_async((total,), producer=producer, queue=queue)
    worker.wait_told("all have gone", START)
    assert worker.told() == ["2000 are here", "all have gone"]


def test_no_more_tickets_than_places(start_worker: StartWorker) -> None:
    worker = start_worker(concurrency=5)
    for number in range(20):
        worker.send("sample.nap", f"n{number}", 0.4)
    wait_until(lambda: sum(line.startswith("start") for line in worker.told()) >= 5, "five started", START)
    running = peak = 0
    wait_until(lambda: sum(line.startswith("end") for line in worker.told()) == 20, "all ended")
    for line in worker.told():
        running += 1 if line.startswith("start") else -1
        peak = max(peak, running)
    assert peak == 5


def test_prefork_and_threads_still_serve(start_worker: StartWorker) -> None:
    for pool in ("prefork", "threads"):
        worker = start_worker("-P", pool, "-c", "1").ready()
        assert f"({pool})" in worker.log().replace("(thread)", "(threads)")
        before = len(worker.told())
        send_ticket(worker.app, "writer", 1)
        worker.send("sample.plain", pool)
        wait_until(lambda: len(worker.told()) == before + 2, "both done")  # noqa: B023
        assert "served writer 1 synchronously" in worker.told()
        worker.process.terminate()
        assert worker.wait_exit() == 0
