"""One fleet for every rule."""

import uuid
from collections.abc import Iterator

import pytest

from techrevati.store.embedded import EmbeddedRedis
from tests.conformance.service import RuleFleet


@pytest.fixture(scope="session")
def rule_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuleFleet]:
    home = tmp_path_factory.mktemp("rules")
    with EmbeddedRedis() as redis, RuleFleet(f"rules-{uuid.uuid4().hex[:6]}", redis.url, home) as fleet:
        yield fleet
