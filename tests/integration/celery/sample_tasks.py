"""Tasks for the worker tests; what they do is told in Redis lists named after the fleet."""

import asyncio
import threading
import time
from typing import Any

import celery
import redis

from techrevati.fleet.celery.app import FleetCelery
from techrevati.fleet.celery.async_task import AsyncTask


class Recorder:
    """Append lines to the list ``<fleet>:told``, from whatever process."""

    def __init__(self, fleet: str, url: str) -> None:
        self.key = f"{fleet}:told"
        self._redis = redis.Redis.from_url(url, decode_responses=True)

    def tell(self, line: str) -> None:
        self._redis.rpush(self.key, line)


def tell(task: Any, line: str) -> None:
    task._get_app().recorder.tell(line)


class Nap(AsyncTask):
    name = "sample.nap"

    async def arun(self, request: Any, label: str, seconds: float) -> str:
        tell(self, f"start {label}")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            tell(self, f"cancelled {label}")
            raise
        tell(self, f"end {label}")
        return label

    def run(self, label: str, seconds: float) -> str:
        tell(self, f"start {label}")
        time.sleep(seconds)
        tell(self, f"end {label}")
        return label


class Crowd(AsyncTask):
    """Wait until `total` wait at once; the last to come and the last to go tell."""

    name = "sample.crowd"
    here, complete = 0, asyncio.Event()

    async def arun(self, request: Any, total: int) -> None:
        cls = type(self)
        cls.here += 1
        if cls.here == total:
            tell(self, f"{total} are here")
            cls.complete.set()
        await cls.complete.wait()
        cls.here -= 1
        if cls.here == 0:
            tell(self, "all have gone")


class Stubborn(AsyncTask):
    """Ignore being cancelled, as careless code does."""

    name = "sample.stubborn"

    async def arun(self, request: Any, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                tell(self, "shrug")


class Fail(AsyncTask):
    name = "sample.fail"

    async def arun(self, request: Any, label: str) -> None:
        raise RuntimeError(f"on purpose: {label}")


class Block(AsyncTask):
    """Block the loop, which no limit can stop."""

    name = "sample.block"

    async def arun(self, request: Any, seconds: float) -> None:
        tell(self, "blocking")
        time.sleep(seconds)  # the fault under test


class Plain(celery.Task):  # type: ignore[misc]  # celery is untyped
    """A synchronous task."""

    name = "sample.plain"

    def run(self, label: str) -> None:
        tell(self, f"plain {label} on {threading.current_thread().name}")
        if label == "hang":
            time.sleep(60)


def register(app: FleetCelery, url: str) -> FleetCelery:
    """Add the tasks to an app, on either side of the queue."""
    app.recorder = Recorder(app.main, url)
    for task in (Nap(), Crowd(), Stubborn(), Fail(), Block(), Plain()):
        app.register_task(task)
    return app
