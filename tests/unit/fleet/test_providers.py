"""The provider clients, over real HTTP, against a small server that speaks both APIs."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai
import pytest

from techrevati.fleet.failures import classify
from techrevati.fleet.models import ModelRequest, Models
from techrevati.fleet.providers import AnthropicModel, NoProvider, OpenAIModel, known_providers, split_system

SEEN: list[dict[str, Any]] = []


def openai_lines() -> Iterator[dict[str, Any]]:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    for piece in ("The tide ", "turns."):
        yield {**head, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
    for arguments in ('{"q": ', '"tides"}'):
        call = {"index": 0, "id": "t1", "type": "function", "function": {"name": None, "arguments": arguments}}
        yield {**head, "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}
    usage = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
    yield {**head, "choices": [], "usage": usage}


def anthropic_lines() -> Iterator[dict[str, Any]]:
    message: dict[str, Any] = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    yield {"type": "message_start", "message": message}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for piece in ("The tide ", "turns."):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 3}}
    yield {"type": "message_stop"}


class Provider(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        SEEN.append(body)
        if body["model"] == "busy":
            self.send_response(429)
            self.send_header("retry-after", "7")
            self.end_headers()
            self.wfile.write(b"{}")
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        if "chat/completions" in self.path:
            for line in openai_lines():
                self.wfile.write(f"data: {json.dumps(line)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            for line in anthropic_lines():
                self.wfile.write(f"event: {line['type']}\ndata: {json.dumps(line)}\n\n".encode())

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    SEEN.clear()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


async def test_openai_streams_text_and_counts_tokens(server: str) -> None:
    pieces: list[str] = []
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{server}/v1", max_retries=0) as client:
        model = OpenAIModel("m", client)
        messages = [{"role": "user", "content": "tides?"}]
        reply = await model.complete(ModelRequest("m", messages, {"on_delta": pieces.append, "temperature": 0}))
    assert reply.text == "The tide turns." and pieces == ["The tide ", "turns."]
    assert (reply.input_tokens, reply.output_tokens) == (11, 4)
    assert reply.tool_calls == [
        {"id": "t1", "type": "function", "function": {"name": "", "arguments": '{"q": "tides"}'}}
    ]
    assert SEEN[0]["temperature"] == 0 and "on_delta" not in SEEN[0]


async def test_anthropic_streams_text_and_takes_the_system_message_apart(server: str) -> None:
    pieces: list[str] = []
    async with anthropic.AsyncAnthropic(api_key="k", base_url=server, max_retries=0) as client:
        model = AnthropicModel("m", client)
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "tides?"}]
        reply = await model.complete(ModelRequest("m", messages, {"on_delta": pieces.append}))
    assert reply.text == "The tide turns." and "".join(pieces) == reply.text
    assert (reply.input_tokens, reply.output_tokens) == (9, 3)
    assert SEEN[0]["system"] == "Be brief." and [m["role"] for m in SEEN[0]["messages"]] == ["user"]


async def test_a_429_is_a_rate_limit_and_says_when_to_come_back(server: str) -> None:
    from techrevati.fleet.turn import asked_wait

    async with openai.AsyncOpenAI(api_key="k", base_url=f"{server}/v1", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await OpenAIModel("busy", client).complete(ModelRequest("busy", [{"role": "user", "content": "?"}]))
    assert classify(caught.value) == "rate_limit"
    assert asked_wait(caught.value) == 7.0


def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NoProvider, match="OPENAI_API_KEY") as caught:
        known_providers(Models())["openai:gpt-5-mini"]
    assert classify(caught.value) == "validation_error"


def test_split_system_keeps_the_order_of_the_rest() -> None:
    system, rest = split_system([{"role": "user", "content": "a"}, {"role": "system", "content": "s"}])
    assert system == "s" and rest == [{"role": "user", "content": "a"}]
