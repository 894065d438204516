"""Health check of a worker or coordinator container: has the store heard from this host lately?

    python deploy/alive.py        exit 0: yes, or the store cannot say · exit 1: it has not

A store that is away is nobody's fault here: a restart would only cost the turns that this process holds.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping

import redis

from techrevati.fleet.coordinator import members_key
from techrevati.fleet.registry import workers_key
from techrevati.fleet.settings import load_settings


def is_alive(host: str, now: float, workers: Mapping[str, str], coordinators: Mapping[str, str]) -> bool:
    """Tell whether a worker or a coordinator of this host counts as living."""
    cards = (json.loads(text) for text in workers.values())
    return any(card["host"] == host and card["until"] > now for card in cards) or any(
        name.split(":")[0] == host and int(until) > now * 1e6 for name, until in coordinators.items()
    )


def main() -> int:
    fleet, url = os.environ["TECHREVATI_FLEET"], load_settings().redis_url
    try:
        with redis.Redis.from_url(url, decode_responses=True, socket_timeout=3, socket_connect_timeout=3) as client:
            workers: dict[str, str] = client.hgetall(workers_key(fleet))
            coordinators: dict[str, str] = client.hgetall(members_key(fleet))
    except redis.RedisError as error:
        print(f"the store cannot say: {error}")
        return 0
    if is_alive(socket.gethostname(), time.time(), workers, coordinators):
        return 0
    print(f"fleet {fleet} has not heard from {socket.gethostname()}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
