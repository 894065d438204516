"""What every process of a fleet may know of its agents."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Card:
    """What other processes know of an agent; kept as JSON in ``roles:{fleet}``."""

    name: str
    role: str
    handoffs: tuple[str, ...] = ()
    version: str = "1"
    fallback: str | None = None
    max_attempts: int = 3
    winds_up: bool = False
    """It has hooks for a run's end: where a run of it is cancelled while it waits, it has a turn for them."""

    def to_json(self) -> str:
        return json.dumps(
            {
                "role": self.role,
                "handoffs": self.handoffs,
                "version": self.version,
                "fallback": self.fallback,
                "max_attempts": self.max_attempts,
                "winds_up": self.winds_up,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, name: str, text: str) -> "Card":
        body: Mapping[str, Any] = json.loads(text)
        return cls(
            name,
            body["role"],
            tuple(body.get("handoffs", ())),
            body.get("version", "1"),
            body.get("fallback"),
            body.get("max_attempts", 3),
            body.get("winds_up", False),
        )
