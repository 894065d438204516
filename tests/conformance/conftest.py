"""One fleet for every rule; it ends with the last of them, so that what comes after has its process to itself."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from techrevati.store.embedded import EmbeddedRedis
from tests.conformance.service import RuleFleet

HERE = Path(__file__).parent


class OneFleet:
    """Started for the first rule, ended behind the last."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._fleet: RuleFleet | None = None

    def get(self, home: Path) -> RuleFleet:
        if self._fleet is None:
            redis = self._stack.enter_context(EmbeddedRedis())
            self._fleet = self._stack.enter_context(RuleFleet(f"rules-{uuid.uuid4().hex[:6]}", redis.url, home))
        return self._fleet

    def end(self) -> None:
        self._fleet = None
        self._stack.close()


@pytest.fixture(scope="session")
def one_fleet() -> Iterator[OneFleet]:
    one = OneFleet()
    yield one
    one.end()


@pytest.fixture
def rule_fleet(
    one_fleet: OneFleet, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> RuleFleet:
    request.node.stash[ONE] = one_fleet
    return one_fleet.get(tmp_path_factory.mktemp("rules"))


ONE = pytest.StashKey[OneFleet]()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if ONE in item.stash and (nextitem is None or HERE not in nextitem.path.parents):
        item.stash[ONE].end()
