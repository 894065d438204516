"""The guide to shared breakers runs as it is written, in two replicas one after the other."""

import subprocess
import sys

from techrevati.store.embedded import EmbeddedRedis
from tests.unit.project.documents import ROOT, blocks

SAID = ["called, and paid for 640", "rate True", "499"]


def test_the_guide_runs_and_a_second_replica_does_not_even_try(private_redis: EmbeddedRedis) -> None:
    code = "\n".join(block.code for block in blocks("python", ROOT / "docs" / "guides" / "sharing-a-breaker.md"))
    code = code.replace("redis://localhost:6379/0", private_redis.url)

    def replica(code: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    assert replica(code) == ["failed"] * 3 + ["not even tried"] * 2 + SAID
    first = next(blocks("python", ROOT / "docs" / "guides" / "sharing-a-breaker.md")).code
    assert replica(first.replace("redis://localhost:6379/0", private_redis.url)) == ["not even tried"] * 5
    assert "celery" not in code
