"""The price table, and an index over it that notices every edit.

    register ──▶ PricingTable ──version──▶ PriceIndex ──price_of(model)──▶ ModelPricing | None

Callers edit the table directly, as the plain `dict` it is; each edit bumps `version`, and an
index of another version is thrown away.  So looking a price up costs one dict access, and no
second copy can go stale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])
_REMEMBERED = 4096  # model names per version; callers may invent names without end


@dataclass(frozen=True)
class ModelPricing:
    """USD per million tokens."""

    input_per_million: float
    output_per_million: float
    cache_write_per_million: float = 0.0
    cache_read_per_million: float = 0.0
    cache_write_5min_per_million: float = 0.0
    cache_write_1h_per_million: float = 0.0

    def write_rate_for_ttl(self, ttl: str | None) -> float:
        """The cache-write rate of a time to live; tiers at zero fall back to the plain rate."""
        if ttl == "5m" and self.cache_write_5min_per_million:
            return self.cache_write_5min_per_million
        if ttl == "1h" and self.cache_write_1h_per_million:
            return self.cache_write_1h_per_million
        return self.cache_write_per_million


FREE = ModelPricing(0.0, 0.0)


def _edits(method: _F) -> _F:
    """Wrap a mutating method of `dict` so that it bumps `version`.

    After the edit, not before: a reader in between then labels new prices with the old version,
    which is thrown away, and never old prices with the new one.
    """

    def edit(self: PricingTable, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        finally:
            self.version += 1

    edit.__name__ = method.__name__
    return edit  # type: ignore[return-value]  # same signature, seen through *args


class PricingTable(dict[str, ModelPricing]):
    """Lower-cased model name, or prefix of one, to its price."""

    version = 0

    __setitem__ = _edits(dict.__setitem__)
    __delitem__ = _edits(dict.__delitem__)
    __ior__ = _edits(dict.__ior__)
    clear = _edits(dict.clear)
    pop = _edits(dict.pop)
    popitem = _edits(dict.popitem)
    setdefault = _edits(dict.setdefault)
    update = _edits(dict.update)


def find_price(table: dict[str, ModelPricing], model: str) -> ModelPricing | None:
    """The exact entry, else that of the longest key the name starts with."""
    name = model.lower()
    exact = table.get(name)
    if exact is not None:
        return exact
    # list() copies in one step, so another thread may register meanwhile.
    prefix = max((key for key in list(table) if name.startswith(key)), key=len, default=None)
    return None if prefix is None else table.get(prefix)


class PriceIndex:
    """Prices already looked up in one version of one table."""

    __slots__ = ("_found", "_table", "version")

    def __init__(self, table: dict[str, ModelPricing]) -> None:
        self._table = table
        self.version = getattr(table, "version", None)
        self._found: dict[str, ModelPricing | None] = {}

    def is_current(self, table: dict[str, ModelPricing]) -> bool:
        """Whether its answers still hold; for a plain dict nobody can tell, so never."""
        return self._table is table and self.version is not None and table.version == self.version  # type: ignore[attr-defined]

    def price_of(self, model: str) -> ModelPricing | None:
        """The price of `model`, `None` if there is none."""
        try:
            return self._found[model]
        except KeyError:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            price = self._found[model] = find_price(self._table, model)
            return price
