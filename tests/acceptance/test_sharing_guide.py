"""The guide to sharing budgets and checkpoints runs from top to bottom, in one process."""

from typing import Any

import pytest
import redis

from techrevati.runtime import usage_tracking
from techrevati.store.embedded import EmbeddedRedis
from tests.unit.project.documents import ROOT, blocks

GUIDE = ROOT / "docs" / "guides" / "sharing-budgets-and-checkpoints.md"


def test_the_guide_runs_as_it_is_written(private_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TECHREVATI_REDIS_URL", private_redis.url)
    monkeypatch.setattr(usage_tracking, "_warned_unpriced_models", set[str]())
    found = list(blocks("python", GUIDE))
    assert len(found) == GUIDE.read_text("utf-8").count("```python") > 7
    names: dict[str, Any] = {"__name__": "guide"}
    for block in found:
        source = "\n" * (block.line - 1) + block.code  # so that a failure names the guide's line
        exec(compile(source, str(GUIDE), "exec"), names)
    with redis.Redis.from_url(private_redis.url, decode_responses=True) as client:
        kinds = {key.partition(":")[0] for key in client.scan_iter()}
    assert kinds == {"budget", "budgets", "saver", "sink"}
