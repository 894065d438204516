"""Tokens, costs, budgets and limits of a session.

    record_turn ──▶ turns ──▶ totals ──▶ total_cost, summary, check_limits

Prices are looked up when somebody asks, in the table as it is then; the sums are kept running
all the same (`_ledger`), so a session of ten thousand turns costs as much per turn as one of ten.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, assert_never

from techrevati.runtime._ledger import Totals, TurnLog, price_turn
from techrevati.runtime._pricing import FREE, ModelPricing, PriceIndex, PricingTable
from techrevati.runtime._usage import (
    BudgetExceededError,
    CarriedUsage,
    UsageBoundExceededError,
    UsageLimitExceededError,
    UsageLimits,
    UsageSnapshot,
    sum_by_model,
)
from techrevati.runtime.errors import TechrevatiError

__all__ = [
    "PRICING_TABLE",
    "BudgetExceededError",
    "CarriedUsage",
    "ModelPricing",
    "PricingConflictError",
    "UsageBoundExceededError",
    "UsageLimitExceededError",
    "UsageLimits",
    "UsageSnapshot",
    "UsageTracker",
    "has_pricing",
    "load_pricing_from_file",
    "register_pricing",
]

logger = logging.getLogger("techrevati.runtime.usage_tracking")
logger.addHandler(logging.NullHandler())

OnConflict = Literal["replace", "keep", "error"]

PRICING_TABLE: dict[str, ModelPricing] = PricingTable()
_warned_unpriced_models: set[str] = set()
_registering = threading.Lock()
_index = PriceIndex(PRICING_TABLE)


class PricingConflictError(TechrevatiError, ValueError):
    """A model already has another price, and the caller asked to be told."""

    def __init__(self, model: str, registered: ModelPricing, offered: ModelPricing) -> None:
        super().__init__(model, registered, offered)
        self.model, self.registered, self.offered = model, registered, offered

    def __str__(self) -> str:
        return (
            f"model '{self.model}' is already priced at {self.registered}, refusing {self.offered}:"
            " pass on_conflict='replace' or 'keep'"
        )


def register_pricing(model: str, pricing: ModelPricing, *, on_conflict: OnConflict = "replace") -> None:
    """Price `model`, and every name that starts with it.  Safe for threads.

    `on_conflict` says what happens when the model has another price already: the new one
    replaces it, the old one is kept, or it is an error.

    Raises:
        PricingConflictError: it has, and `on_conflict` is ``"error"``.
        ValueError: `on_conflict` is none of the three.
    """
    if on_conflict not in ("replace", "keep", "error"):
        raise ValueError(f"unknown on_conflict {on_conflict!r}: use replace, keep or error")
    name = model.lower()
    with _registering:
        registered = PRICING_TABLE.get(name)
        if registered is None or on_conflict == "replace":
            PRICING_TABLE[name] = pricing
        elif on_conflict == "error":
            if registered != pricing:
                raise PricingConflictError(name, registered, pricing)
        elif on_conflict == "keep":
            pass
        else:
            assert_never(on_conflict)


def _register_all(models: dict[str, dict[str, float]]) -> None:
    optional = (
        "cache_write_per_million",
        "cache_read_per_million",
        "cache_write_5min_per_million",
        "cache_write_1h_per_million",
    )
    # Everything is read before anything is registered: a bad file changes nothing.
    prices = {
        name: ModelPricing(
            rates["input_per_million"],
            rates["output_per_million"],
            **{tier: rates[tier] for tier in optional if tier in rates},
        )
        for name, rates in models.items()
    }
    for name, price in prices.items():
        register_pricing(name, price)


def load_pricing_from_file(path: str | Path) -> None:
    """Merge the ``models`` of a JSON file into the table; the file wins.

    Raises:
        KeyError: ``models``, or a model's input or output rate, is missing.
    """
    _register_all(json.loads(Path(path).read_text("utf-8"))["models"])


def _prices() -> PriceIndex:
    """The index over the table as it is now."""
    global _index
    index = _index
    if not index.is_current(PRICING_TABLE):
        index = _index = PriceIndex(PRICING_TABLE)
    return index


def has_pricing(model: str) -> bool:
    """Whether the model, or a prefix of its name, is priced."""
    return _prices().price_of(model) is not None


def _resolve_pricing(model: str) -> ModelPricing:
    """The model's price, that of its longest registered prefix, or nothing per token."""
    return _prices().price_of(model) or FREE


def _warn_unpriced(model: str) -> None:
    name = model.lower()
    if name in _warned_unpriced_models:
        return
    with _registering:
        first = name not in _warned_unpriced_models
        _warned_unpriced_models.add(name)
    if first:
        logger.warning("no pricing registered for model '%s': its turns count as free", model)


@dataclass
class UsageTracker:
    """The turns of a session, and what they add up to.

    `turns` is an ordinary list and may be edited; totals follow, and so they do when prices
    change.  `record_turn` is safe for threads.
    """

    turns: list[tuple[str, UsageSnapshot]] = field(default_factory=TurnLog)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._carried: tuple[CarriedUsage, ...] = ()
        self._totals: Totals | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"turns": self.turns, "_carried": self._carried}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.turns = state["turns"]
        self.__post_init__()
        self._carried = state["_carried"]

    def carry(self, carried: Iterable[CarriedUsage]) -> None:
        """Start from what was used before, in another process."""
        with self._lock:
            self._carried = (*self._carried, *carried)
            self._totals = None

    def carried_forward(self) -> list[CarriedUsage]:
        """Everything so far, one entry per model and cache tier, for `carry` elsewhere."""
        before = [(entry.model, entry.turns, entry.usage) for entry in self._carried]
        return sum_by_model([*before, *((model, 1, usage) for model, usage in list(self.turns))])

    def record_turn(self, model: str, usage: UsageSnapshot) -> None:
        """Add a turn; warn once per process about a model without a price."""
        self.turns.append((model, usage))
        if model and _prices().price_of(model) is None:
            _warn_unpriced(model)

    def _current(self) -> Totals:
        index, turns = _prices(), self.turns
        with self._lock:
            totals = self._totals
            if totals is None or not totals.still_hold(index, turns):
                totals = Totals(index, turns)
                for entry in self._carried:
                    totals.add(entry.model, entry.usage)
                self._totals = totals
            if totals.done != len(turns):
                totals.catch_up()
            return totals

    @property
    def total_input_tokens(self) -> int:
        """Input tokens of all turns."""
        return self._current().input_tokens

    @property
    def total_output_tokens(self) -> int:
        """Output tokens of all turns."""
        return self._current().output_tokens

    @property
    def total_tool_calls(self) -> int:
        """Tool calls of all turns."""
        return self._current().tool_calls

    def cost_for_turn(self, model: str, usage: UsageSnapshot) -> float:
        """USD this snapshot costs today.  Records nothing."""
        return price_turn(_prices().price_of(model) or FREE, usage)

    def total_cost(self) -> float:
        """USD of all turns, at today's prices."""
        return self._current().cost

    def format_cost(self) -> str:
        """The total for people: four decimals below a cent, else two."""
        cost = self.total_cost()
        return f"${cost:.4f}" if cost < 0.01 else f"${cost:.2f}"

    def budget_remaining(self, budget_usd: float) -> float:
        """USD left; negative when overspent."""
        return budget_usd - self.total_cost()

    def is_over_budget(self, budget_usd: float) -> bool:
        """Whether more was spent than `budget_usd`."""
        return self.total_cost() > budget_usd

    def summary(self) -> dict[str, Any]:
        """Counts and cost, JSON-ready."""
        totals = self._current()
        return {
            "turns": sum(entry.turns for entry in self._carried) + len(self.turns),
            "total_input_tokens": totals.input_tokens,
            "total_output_tokens": totals.output_tokens,
            "total_cost_usd": round(totals.cost, 4),
            "formatted_cost": self.format_cost(),
        }

    def per_model_summary(self) -> dict[str, float]:
        """USD per model name, as recorded."""
        return dict(self._current().cost_by_model)

    def check_limits(self, limits: UsageLimits) -> None:
        """Refuse to go on past a ceiling; costs are compared in whole micro-dollars.

        Raises:
            UsageLimitExceededError: the first ceiling passed, in the order of the fields.
        """
        totals = self._current()
        request, response = totals.input_tokens, totals.output_tokens
        for name, observed, ceiling in (
            ("request_tokens", request, limits.request_tokens_max),
            ("response_tokens", response, limits.response_tokens_max),
            ("total_tokens", request + response, limits.total_tokens_max),
            ("tool_calls", totals.tool_calls, limits.tool_calls_max),
        ):
            if ceiling is not None and observed > ceiling:
                raise UsageLimitExceededError(name, observed, ceiling)
        if limits.cost_usd_max is not None:
            spent, allowed = int(totals.cost * 1_000_000), int(limits.cost_usd_max * 1_000_000)
            if spent > allowed:
                raise UsageLimitExceededError("cost_usd", spent, allowed)


def _load_shipped() -> None:
    _register_all(json.loads(files("techrevati.runtime").joinpath("data/pricing.json").read_text("utf-8"))["models"])


_load_shipped()
