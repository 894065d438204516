"""Running totals over the turns of a session.

    turns ──▶ [ done ····· | new ] ──catch_up──▶ Totals

Each turn is added up once, when somebody asks.  What was added is thrown away when a price
changes or when somebody edits the middle of the list; `TurnLog` is a list that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from techrevati.runtime._pricing import FREE, ModelPricing, PriceIndex
from techrevati.runtime._usage import UsageSnapshot

_F = TypeVar("_F", bound=Callable[..., Any])
_MILLION = 1_000_000


def _rewrites(method: _F) -> _F:
    def rewrite(self: TurnLog, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        finally:
            self.rewrites += 1

    rewrite.__name__ = method.__name__
    return rewrite  # type: ignore[return-value]  # same signature, seen through *args


class TurnLog(list[tuple[str, UsageSnapshot]]):
    """A list that counts edits other than additions at its end."""

    rewrites = 0

    __setitem__ = _rewrites(list.__setitem__)
    __delitem__ = _rewrites(list.__delitem__)
    __imul__ = _rewrites(list.__imul__)
    clear = _rewrites(list.clear)
    insert = _rewrites(list.insert)
    pop = _rewrites(list.pop)
    remove = _rewrites(list.remove)
    reverse = _rewrites(list.reverse)
    sort = _rewrites(list.sort)


def price_turn(price: ModelPricing, usage: UsageSnapshot) -> float:
    """USD for one snapshot at one price."""
    cost = usage.input_tokens * price.input_per_million + usage.output_tokens * price.output_per_million
    if usage.cache_write_tokens:
        cost += usage.cache_write_tokens * price.write_rate_for_ttl(usage.cache_ttl)
    if usage.cache_read_tokens:
        cost += usage.cache_read_tokens * price.cache_read_per_million
    return cost / _MILLION


class Totals:
    """Sums over the first `done` turns, priced by one `index`."""

    __slots__ = (
        "cost",
        "cost_by_model",
        "done",
        "index",
        "input_tokens",
        "output_tokens",
        "rewrites",
        "source",
        "tool_calls",
    )

    def __init__(self, index: PriceIndex, source: list[tuple[str, UsageSnapshot]]) -> None:
        self.index, self.source = index, source
        self.rewrites = getattr(source, "rewrites", None)
        self.done = self.input_tokens = self.output_tokens = self.tool_calls = 0
        self.cost = 0.0
        self.cost_by_model: dict[str, float] = {}

    def still_hold(self, index: PriceIndex, turns: list[tuple[str, UsageSnapshot]]) -> bool:
        """Whether what is summed is a prefix of `turns` at today's prices.

        A plain list cannot tell about edits, so sums over one never hold.
        """
        return (
            self.index is index
            and self.source is turns
            and self.rewrites is not None
            and turns.rewrites == self.rewrites  # type: ignore[attr-defined]  # a TurnLog, by the line above
            and self.done <= len(turns)
        )

    def add(self, model: str, usage: UsageSnapshot) -> None:
        """Add one turn, or a carried sum of turns, of `model`."""
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.tool_calls += usage.tool_calls
        cost = price_turn(self.index.price_of(model) or FREE, usage)
        self.cost += cost
        self.cost_by_model[model] = self.cost_by_model.get(model, 0.0) + cost

    def catch_up(self) -> None:
        """Add the turns that came since."""
        turns = self.source
        end = len(turns)  # once: another thread may add a turn while these are summed
        for position in range(self.done, end):
            model, usage = turns[position]
            self.add(model, usage)
        self.done = end
