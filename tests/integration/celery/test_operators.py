"""What an operator asks of a worker: events, rate limits, more places."""

import threading
import time
from contextlib import suppress

from techrevati.fleet.celery.app import FleetCelery
from tests.integration.celery.conftest import StartWorker, wait_until


def test_events_rate_limits_and_growth(start_worker: StartWorker) -> None:
    worker = start_worker("-E", control=1, concurrency=10).ready()
    seen: list[tuple[str, str]] = []

    def hear(event: dict[str, str]) -> None:
        seen.append((event["type"], event.get("uuid", "")))

    def listen() -> None:
        with worker.app.connection_for_write() as connection:
            receiver = worker.app.events.Receiver(connection, handlers={"*": hear})
            with suppress(TimeoutError):
                receiver.capture(limit=None, timeout=2, wakeup=False)

    listener = threading.Thread(target=listen)
    listener.start()
    clients = worker.redis.client_list
    wait_until(lambda: sum(c["cmd"] == "psubscribe" for c in clients()) >= 2, "listener subscribed")
    ended, failed = worker.send("sample.nap", "told", 0), worker.send("sample.fail", "told")
    wait_until(lambda: ("task-failed", failed) in seen and ("task-succeeded", ended) in seen, "events")
    assert [kind for kind, uuid in seen if uuid == ended] == ["task-received", "task-started", "task-succeeded"]

    control, one = worker.app.control, {"reply": True, "limit": 1}
    assert control.rate_limit("sample.nap", "5/s", **one)
    began = time.monotonic()
    for number in range(6):
        worker.send("sample.nap", f"slow{number}", 0)
    worker.wait_told("end slow5")
    assert time.monotonic() - began > 0.7

    assert control.pool_grow(5, **one)
    wait_until(lambda: _places(worker.app) == 15, "15 places")
    assert control.pool_shrink(3, **one)
    wait_until(lambda: _places(worker.app) == 12, "12 places")
    listener.join(15)


def _places(app: FleetCelery) -> int:
    (stats,) = app.control.inspect(timeout=2, limit=1).stats().values()
    return int(stats["pool"]["max-concurrency"])
