"""Property tests run on a real server; ``HYPOTHESIS_PROFILE=long`` looks longer and at random."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from techrevati.store.embedded import EmbeddedRedis

_COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
settings.register_profile("store", _COMMON, max_examples=50, stateful_step_count=50, derandomize=True)
settings.register_profile("long", _COMMON, max_examples=5000, stateful_step_count=60)


def profile() -> settings:
    return settings.get_profile("long" if os.environ.get("HYPOTHESIS_PROFILE") == "long" else "store")


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedRedis]:
    # A node of one entry: streams are trimmed to the entry, so the twin can say what is kept.
    options = {"stream-node-max-entries": "1", "appendonly": "no"}
    with EmbeddedRedis(options=options) as running:
        yield running
