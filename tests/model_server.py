"""A small HTTP server that speaks both providers' streaming APIs, and misbehaves as the model's name says.

    "busy" 429 · "500" that status · "slow" never ends · "cut" hangs up · "hush" just ends
    "garbled" a broken chunk · "dies" an error inside the stream · any other name answers

The names of streams may be "name after", to speak first.

One process may serve several tests; `seen` has every request's body, `busy_until` makes all of it answer 429.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BROKEN = ("slow", "cut", "hush", "garbled", "dies")
PIECES = ("The tide ", "turns.")
OPENAI_LIMITS = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "29000",
    "x-ratelimit-reset-tokens": "1m30s",
}
ANTHROPIC_LIMITS = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-input-tokens-limit": "40000",
    "anthropic-ratelimit-input-tokens-remaining": "39000",
}


def openai_lines(*, tools: bool = True) -> Iterator[dict[str, Any]]:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    yield choice({"role": "assistant", "reasoning_content": "moon"})
    for piece in PIECES:
        yield choice({"content": piece})
    if tools:
        named = {"index": 0, "id": "t1", "type": "function", "function": {"name": "look", "arguments": ""}}
        yield choice({"tool_calls": [named]})
        for arguments in ('{"q": ', '"tides"}'):
            yield choice({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]})
    yield choice({}, "tool_calls" if tools else "stop")
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 4,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    yield {**head, "choices": [], "usage": usage}


def anthropic_lines(*, tools: bool = True) -> Iterator[dict[str, Any]]:
    message: dict[str, Any] = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 9,
            "output_tokens": 1,
            "cache_read_input_tokens": 5,
            "cache_creation_input_tokens": 3,
            "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
        },
    }
    yield {"type": "message_start", "message": message}
    yield {"type": "ping"}
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [{"type": "thinking_delta", "thinking": "moon"}, {"type": "signature_delta", "signature": "sig"}],
        ),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in PIECES]),
    ]
    if tools:
        parts = [{"type": "input_json_delta", "partial_json": part} for part in ('{"q": ', '"tides"}')]
        blocks.append(({"type": "tool_use", "id": "t1", "name": "look", "input": {}}, parts))
    for index, (block, deltas) in enumerate(blocks):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": "tool_use" if tools else "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 3}}
    yield {"type": "message_stop"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ModelServer"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            server.seen.append(body)
            server.times.append(time.time())
            wait = server.busy_until - time.time()
        name, _, when = body["model"].partition(" ")
        if wait > 0:
            self._refuse(429, {"retry-after-ms": str(round(wait * 1000))})
        elif name == "busy":
            headers = {"seconds": "7", "date": formatdate(time.time() + 90, usegmt=True)}
            self._refuse(429, {"retry-after": headers[when]} if when in headers else {"retry-after-ms": "1500"})
        elif name.isdigit() and not when:
            self._refuse(int(name), {})
        elif name == "quota":
            self._refuse(429, {}, code="insufficient_quota")
        elif name == "long":
            self._refuse(400, {}, message="This model's maximum context length is 8192 tokens")
        else:
            self._stream(name, speak=when == "after", tools=bool(body.get("tools")))

    @property
    def _openai(self) -> bool:
        return "chat/completions" in self.path

    def _refuse(self, status: int, headers: Mapping[str, str], *, code: str = "", message: str = "no") -> None:
        kind = {429: "rate_limit_error", 529: "overloaded_error", 400: "invalid_request_error"}.get(status, "api_error")
        error: dict[str, Any] = {"message": message, "type": "requests" if self._openai else kind}
        if code:
            error |= {"code": code, "type": code}
        body = json.dumps({"error": error} if self._openai else {"type": "error", "error": error}).encode()
        self.send_response(status)
        for header, value in {**headers, "content-type": "application/json", "content-length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, name: str, *, speak: bool, tools: bool) -> None:
        self.send_response(200)
        limits = OPENAI_LIMITS if self._openai else ANTHROPIC_LIMITS
        for header, value in {**limits, "content-type": "text/event-stream", "transfer-encoding": "chunked"}.items():
            self.send_header(header, value)
        self.end_headers()
        lines = openai_lines(tools=tools) if self._openai else anthropic_lines(tools=tools)
        spoke = False
        for line in lines:
            if name in BROKEN and (spoke or not speak):
                if self._misbehave(name):
                    return
                break
            self._event(line)
            spoke = spoke or PIECES[0] in json.dumps(line)
        else:
            if self._openai:
                self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _misbehave(self, name: str) -> bool:
        """Do as the name says; True hangs up in the middle."""
        match name:
            case "slow":
                self.server.released.wait(20)
            case "cut":
                self.close_connection = True
                return True
            case "garbled":
                self._chunk(b'event: content_block_delta\ndata: {"broken\n\n')
            case "dies":
                error = {"type": "overloaded_error", "message": "Overloaded"}
                self._event({"type": "error", "error": error})
        return False

    def _event(self, line: dict[str, Any]) -> None:
        event = f"event: {line['type']}\n" if "type" in line and not self._openai else ""
        self._chunk(f"{event}data: {json.dumps(line)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""


class ModelServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        self.busy_until = 0.0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the test."""


@contextmanager
def model_server() -> Iterator[ModelServer]:
    server = ModelServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
