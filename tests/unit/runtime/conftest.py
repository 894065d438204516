"""Each test starts with an empty price table and nobody warned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from techrevati.runtime import usage_tracking


@pytest.fixture(autouse=True)
def clean_prices() -> Iterator[None]:
    before = dict(usage_tracking.PRICING_TABLE)
    usage_tracking.PRICING_TABLE.clear()
    usage_tracking._warned_unpriced_models.clear()
    yield
    usage_tracking.PRICING_TABLE.clear()
    usage_tracking.PRICING_TABLE.update(before)
    usage_tracking._warned_unpriced_models.clear()
