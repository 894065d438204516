"""The agents of the benchmarks, as an application would write them; all in one role, so in one pool.

    celery -A tests.benchmarks.agents worker

=========  ==================================================================================
``bench``  `turns` turns; each keeps 1 KiB of state and sleeps `sleep` s (0 = a no-op turn)
``stamp``  one turn that says when it began
``chain``  each turn's result hashes the one before, read back from the store
=========  ==================================================================================
"""

import asyncio
import os
import time

import redis.asyncio

from techrevati.fleet import Fleet, Outcome, Turn
from tests.benchmarks.chain import STARTED, Begun, link, work
from tests.benchmarks.plain_celery import DONE, STATE

ROLE = "bench"

fleet = Fleet("bench")

_clients: dict[int, redis.asyncio.Redis] = {}


def side() -> redis.asyncio.Redis:
    """The benchmark's own connection, one pool per event loop: for what is measured, not for state."""
    key = id(asyncio.get_running_loop())
    if key not in _clients:
        # Thousands of turns may end at once: they wait for a connection, a plain pool would refuse them.
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            os.environ["BENCH_REDIS_URL"], max_connections=16, timeout=None, decode_responses=True
        )
        _clients[key] = redis.asyncio.Redis(connection_pool=pool)
    return _clients[key]


@fleet.agent(ROLE)
async def bench(turn: Turn) -> Outcome:
    """Keep the same 1 KiB per turn as the baseline; report the session's end on the same list."""
    if sleep := float(turn.input["sleep"]):
        await asyncio.sleep(sleep)
    turn.state["value"] = f"{turn.number:04d}{STATE[4:]}"
    if turn.number < int(turn.input["turns"]):
        return turn.continue_()
    await side().rpush(DONE, turn.input["session"])
    return turn.complete({"turns": turn.number, "pid": os.getpid()})


@fleet.agent(ROLE, name="stamp")
async def stamp(turn: Turn) -> Outcome:
    """Say when the turn's body began."""
    now = time.monotonic_ns()
    await side().rpush(turn.input["key"], now)
    return turn.complete({"pid": os.getpid()})


@fleet.agent(ROLE, name="chain")
async def chain(turn: Turn) -> Outcome:
    """Work for a log-normal time, then put one more link behind the last one that was committed."""
    session = str(turn.input["session"])
    await side().rpush(STARTED, Begun(session, turn.number, os.getpid(), time.monotonic()).encode())
    await asyncio.sleep(work(session, turn.number))
    last = link(str(turn.state.get("last", "")), session, turn.number)
    turn.state["last"] = last
    turn.messages.append({"role": "assistant", "content": last})
    if turn.number < int(turn.input["turns"]):
        return turn.continue_()
    return turn.complete(last)


if os.environ.get("BENCH_REDIS_URL"):  # a worker process: Celery looks for `app`
    app = fleet.celery_for(ROLE)
