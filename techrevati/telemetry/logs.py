"""Structured logs: every line of a turn carries its run, turn and trace ids."""

import json
import logging
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

IDS = ("run_id", "turn", "trace_id", "role", "tenant")


class TurnLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that knows which turn it speaks of."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def turn_log(ids: Mapping[str, object]) -> TurnLog:
    return TurnLog(logging.getLogger("techrevati.turn"), dict(ids))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the ids there are."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in IDS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Text(logging.Formatter):
    """The same for a person: the ids follow the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        ids = " ".join(f"{name}={getattr(record, name)}" for name in IDS if hasattr(record, name))
        return f"{line} [{ids}]" if ids else line


def configure(level: str, *, as_json: bool, path: str | None = None) -> None:
    """Send this process's logs to standard error, or to a file; an entry point calls it once."""
    handler = logging.FileHandler(path) if path else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("techrevati").setLevel(level.upper())
