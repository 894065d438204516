"""The second baseline of the latency benchmark: taskiq on a Redis list.

taskiq worker tests.benchmarks.plain_taskiq:broker
"""

# mypy: disable-error-code="untyped-decorator"
# The type check must also pass where the extra `bench` is not installed.

import os
import time

import redis.asyncio
from taskiq_redis import ListQueueBroker

URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")
NAME = "stamp"

broker = ListQueueBroker(URL)
_side: list[redis.asyncio.Redis] = []


@broker.task(task_name=NAME)
async def stamp(key: str) -> None:
    """Say when the task's body began."""
    now = time.monotonic_ns()
    if not _side:
        _side.append(redis.asyncio.Redis.from_url(URL))
    await _side[0].rpush(key, now)
