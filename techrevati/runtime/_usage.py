"""What a turn used, what a session may use, and the errors between them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class UsageBoundExceededError(Exception):
    """More was used than allowed; base of the two below."""


class BudgetExceededError(UsageBoundExceededError):
    """The session cost more than its budget."""

    def __init__(self, budget_usd: float, current_cost_usd: float) -> None:
        super().__init__(f"budget exceeded: ${current_cost_usd:.4f} > ${budget_usd:.4f}")
        self.budget_usd, self.current_cost_usd = budget_usd, current_cost_usd

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.budget_usd, self.current_cost_usd)


class UsageLimitExceededError(UsageBoundExceededError):
    """One of the session's `UsageLimits` was passed."""

    def __init__(self, limit_name: str, observed: int, ceiling: int) -> None:
        super().__init__(f"usage limit exceeded on '{limit_name}': observed {observed} > ceiling {ceiling}")
        self.limit_name, self.observed, self.ceiling = limit_name, observed, ceiling

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.limit_name, self.observed, self.ceiling)


@dataclass(frozen=True)
class UsageSnapshot:
    """Tokens and tool calls of one turn; `cache_ttl` picks the cache-write tier (5m, 1h)."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    cache_ttl: str | None = None
    tool_calls: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping; ``cache_ttl`` only when set."""
        record: dict[str, Any] = {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "tool_calls": self.tool_calls,
        }
        if self.cache_ttl is not None:
            record["cache_ttl"] = self.cache_ttl
        return record

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> UsageSnapshot:
        """Rebuild from `to_dict`; whatever is missing has its default."""
        return cls(
            input_tokens=data.get("input_tokens", 0),
            output_tokens=data.get("output_tokens", 0),
            cache_write_tokens=data.get("cache_write_tokens", 0),
            cache_read_tokens=data.get("cache_read_tokens", 0),
            cache_ttl=data.get("cache_ttl"),
            tool_calls=data.get("tool_calls", 0),
        )

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, s: str) -> UsageSnapshot:
        """Rebuild from `to_json`."""
        return cls.from_dict(json.loads(s))


ZERO_USAGE = UsageSnapshot()


@dataclass(frozen=True)
class UsageLimits:
    """Ceilings of a session; `None` is no ceiling."""

    request_tokens_max: int | None = None
    response_tokens_max: int | None = None
    total_tokens_max: int | None = None
    tool_calls_max: int | None = None
    cost_usd_max: float | None = None


@dataclass(frozen=True, slots=True)
class CarriedUsage:
    """What `turns` turns of one model used together, elsewhere."""

    model: str
    turns: int
    usage: UsageSnapshot


def sum_by_model(entries: Iterable[tuple[str, int, UsageSnapshot]]) -> list[CarriedUsage]:
    """One entry per model and cache tier: prices are linear, so later ones apply to the sum."""
    sums: dict[tuple[str, str | None], list[int]] = {}
    for model, turns, usage in entries:
        total = sums.setdefault((model, usage.cache_ttl), [0, 0, 0, 0, 0, 0])
        parts = (
            turns,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_write_tokens,
            usage.cache_read_tokens,
            usage.tool_calls,
        )
        total[:] = [a + b for a, b in zip(total, parts, strict=True)]
    return [
        CarriedUsage(model, turns, UsageSnapshot(request, response, write, read, ttl, tools))
        for (model, ttl), (turns, request, response, write, read, tools) in sums.items()
    ]
