"""Fixtures every suite shares: a real Redis, and a fleet name of one's own."""

import os
import uuid
from collections.abc import Iterator

import pytest
import redis
from hypothesis import settings

from techrevati.store.embedded import EmbeddedRedis

settings.register_profile("untimed", deadline=None)  # an example is not wrong because the machine was busy
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real server: ``TEST_REDIS_URL`` if it is set, else one of this test session's own."""
    if url := os.environ.get("TEST_REDIS_URL"):
        yield url
        return
    with EmbeddedRedis() as server:
        yield server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def private_redis() -> Iterator[EmbeddedRedis]:
    """A server that the test may kill, stop and restart."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def fleet_name() -> str:
    """A name no other test uses: all keys of a fleet carry it."""
    return f"t{uuid.uuid4().hex[:10]}"
