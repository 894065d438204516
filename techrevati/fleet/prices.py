"""What a model's tokens cost, from the price table of `techrevati.runtime` (`register_pricing`)."""

from dataclasses import dataclass

from techrevati.runtime.usage_tracking import UsageSnapshot, UsageTracker, has_pricing


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one call, each counted once: `plain` input is neither read from nor written to a cache."""

    plain: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    """Those of `cache_write` that are kept for an hour, at a price of their own."""


def cost_micros(model: str, tokens: Tokens) -> int:
    """Give what the tokens cost in micro-dollars, 0 where the model has no price.

    ``provider:name`` is looked up as it stands, and then by the name alone.
    """
    name = model if has_pricing(model) else model.partition(":")[2]
    if not name or not has_pricing(name):
        return 0
    tracker = UsageTracker()
    short = UsageSnapshot(tokens.plain, tokens.output, tokens.cache_write - tokens.cache_write_1h, tokens.cache_read)
    long = UsageSnapshot(cache_write_tokens=tokens.cache_write_1h, cache_ttl="1h")
    return round((tracker.cost_for_turn(name, short) + tracker.cost_for_turn(name, long)) * 1e6)
