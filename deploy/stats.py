"""What waits and serves in a fleet, over HTTP, for an autoscaler inside the cluster.

GET / ──▶ {"writer": {"ready": 3, "places": 500, "workers": 1, "tickets": 3, "unserved_seconds": 0.1}, ...}

It serves what the coordinators publish once a second; 503 while none does.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import redis

from techrevati.fleet.coordinator import stats_key
from techrevati.fleet.settings import load_settings


def answer(stats: Mapping[str, str]) -> tuple[int, bytes]:
    """Give the status and the body for what the hash holds."""
    if not stats:
        return 503, b'{"error": "no coordinator has published figures in the last minute"}'
    return 200, json.dumps({role: json.loads(text) for role, text in stats.items()}).encode()


def serve(url: str, fleet: str, port: int = 8080) -> ThreadingHTTPServer:
    """Give a server that is bound, not yet running."""
    client = redis.Redis.from_url(url, decode_responses=True, socket_timeout=3, socket_connect_timeout=3)

    class Stats(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status, body = answer(client.hgetall(stats_key(fleet)))  # type: ignore[arg-type]  # it is not async
            except redis.RedisError as error:
                status, body = 503, json.dumps({"error": str(error)}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """An autoscaler asks every few seconds."""

    return ThreadingHTTPServer(("", port), Stats)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # process 1 of a container has no default
    serve(load_settings().redis_url, os.environ["TECHREVATI_FLEET"]).serve_forever()
