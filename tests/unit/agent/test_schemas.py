"""Schemas come from strangers too."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from techrevati.agent.schemas import check_arguments, check_schema
from techrevati.agent.tools import ToolDescriptor, ToolError


class Asked(BaseHTTPRequestHandler):
    """Answers with a schema, and notes that it was asked."""

    paths: list[str]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"type": "integer"}')

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    paths: list[str] = []
    with HTTPServer(("127.0.0.1", 0), type("Noting", (Asked,), {"paths": paths})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/secret", paths
        server.shutdown()


def test_a_schema_that_refers_to_a_url_is_not_followed(asked: tuple[str, list[str]]) -> None:
    url, paths = asked
    described = ToolDescriptor("t", parameters={"type": "object", "properties": {"a": {"$ref": url}}})
    check_schema(described)
    with pytest.raises(ToolError, match="refers to what it does not hold"):
        check_arguments(described, {"a": 1})
    assert paths == []


def test_a_schema_may_refer_to_its_own_parts() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    check_arguments(ToolDescriptor("t", parameters=schema), {"a": 1})
    with pytest.raises(ToolError, match="a: 'x' is not of type 'integer'"):
        check_arguments(ToolDescriptor("t", parameters=schema), {"a": "x"})
