"""The baseline: an agent's turns as a plain Celery chain, one SET of 1 KiB per turn.

    celery -A tests.benchmarks.plain_celery worker --pool prefork -c 2

``BENCH_CELERY=advised`` is what Celery's documentation advises for work that must not be lost: prefork,
late acks, the default prefetch multiplier.  ``tuned`` drops the broker's account of unacked messages and
the priority lists, which is faster and loses what a killed worker held.
"""

# mypy: disable-error-code="untyped-decorator"
# Celery ships no types.

import os
import time
from functools import cache
from typing import Any

import redis
from celery import Celery, chain

from tests.benchmarks.chain import ENDED, HISTORY, STARTED, Begun, work
from tests.benchmarks.chain import link as proof
from tests.benchmarks.harness import Arena

STATE = "x" * 1024
DONE = "bench:done"  # list: sessions whose last turn ran
PONG = "bench:pong"

TUNED = {"ack_emulation": False, "priority_steps": [0]}


@cache
def store() -> redis.Redis:
    """One connection per pool child, opened by its first task."""
    return redis.Redis.from_url(os.environ["BENCH_REDIS_URL"], decode_responses=True)


def keep(session: str, number: int, turns: int) -> None:
    """Keep one turn's state; the last turn reports its session done."""
    store().set(f"state:{session}", f"{number:04d}{STATE[4:]}")
    if number == turns:
        store().rpush(DONE, session)


class Plain:
    """The Celery app of one broker, and its tasks."""

    def __init__(self, url: str, mode: str) -> None:
        self.app = app = Celery("plain", broker=url, set_as_current=False)
        app.conf.update(
            task_acks_late=True,
            worker_prefetch_multiplier=4,
            task_serializer="json",
            accept_content=["json"],
            task_ignore_result=True,
            result_backend=None,
            broker_connection_retry_on_startup=True,
            broker_transport_options=TUNED if mode == "tuned" else {},
        )

        @app.task(name="ping")
        def ping(key: str) -> None:
            """Answer with the pool child's pid, slowly enough that one child cannot answer for all."""
            time.sleep(0.05)
            store().rpush(key, os.getpid())

        @app.task(name="turn")
        def turn(session: str, number: int, turns: int) -> None:
            """Do one turn and send the next, as an application would."""
            keep(session, number, turns)
            if number < turns:
                turn.delay(session, number + 1, turns)

        @app.task(name="link")
        def link(session: str, number: int, turns: int) -> None:
            """Do one turn; `chain` sends the next."""
            keep(session, number, turns)

        @app.task(name="stamp")
        def stamp(key: str) -> None:
            """Say when the task's body began."""
            now = time.monotonic_ns()
            store().rpush(key, now)

        @app.task(name="prove")
        def prove(session: str, number: int, turns: int) -> None:
            """Do one turn of a provable session; see `chain`."""
            begun = Begun(session, number, os.getpid(), time.monotonic())
            store().rpush(STARTED, begun.encode())
            time.sleep(work(session, number))
            history: Any = store().lrange(HISTORY + session, -1, -1)
            store().rpush(HISTORY + session, proof(history[0] if history else "", session, number))
            if number < turns:
                prove.delay(session, number + 1, turns)
            else:
                store().sadd(ENDED, session)

        self.ping, self.turn, self.link, self.stamp, self.prove = ping, turn, link, stamp, prove

    def start_delay(self, session: str, turns: int) -> None:
        self.turn.delay(session, 1, turns)

    def start_chain(self, session: str, turns: int) -> None:
        links: list[Any] = [self.link.si(session, number, turns) for number in range(1, turns + 1)]
        chain(*links, app=self.app).apply_async()

    def close(self) -> None:
        self.app.close()


def start(arena: Arena, mode: str, *, children: int, workers: int = 1) -> Plain:
    """Start `workers` Celery workers and return when every pool child has answered."""
    command = ("python", "-m", "celery", "-A", "tests.benchmarks.plain_celery", "worker", "-l", "warning")
    for number in range(workers):
        arena.spawn(
            f"celery-{number}",
            *command,
            *("--pool", "prefork", "-c", str(children), "-n", f"celery-{number}@%h"),
            env={"BENCH_CELERY": mode},
        )
    plain = Plain(arena.url, mode)
    seen: set[str] = set()
    asked = 4 * children * workers
    while len(seen) < children * workers:
        for _ in range(asked):
            plain.ping.delay(PONG)
        arena.wait(lambda: arena.redis.llen(PONG) >= asked, what="a pong", timeout=60)
        answers: Any = arena.redis.lrange(PONG, 0, -1)
        seen |= set(answers)
        arena.redis.delete(PONG)
    return plain


if url := os.environ.get("BENCH_REDIS_URL"):  # a worker process: Celery looks for `app`
    app = Plain(url, os.environ.get("BENCH_CELERY", "advised")).app
