"""The audit chain: whatever is done to it shows."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from techrevati.runtime import AgentEvent, AgentSession, UsageSnapshot
from techrevati.runtime.audit import GENESIS, Anchor, AuditBrokenError, AuditSink, verify

KEY = b"secret"


@pytest.fixture
def chain(tmp_path: Path) -> list[str]:
    with AuditSink(tmp_path / "a.jsonl") as sink:
        for n in range(5):
            sink.emit(AgentEvent.completed("r", "p", str(n)))
        return list(sink.lines())


def test_a_session_leaves_a_chain_that_verifies(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with AuditSink(path, fsync=True) as sink:
        with AgentSession("r", "p", event_sink=sink, usage_sink=sink).session() as session:
            session.run_turn(int, "m", UsageSnapshot(5))
        anchor = sink.anchor
    lines = path.read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["event", "usage", "event"]
    assert json.loads(lines[0])["prev"] == GENESIS
    assert verify(lines) == anchor == verify(lines, anchor=anchor)
    with AuditSink(path) as again:
        again.emit(AgentEvent.phase_started("p"))
        assert again.anchor.count == 4
    assert verify(path.read_text().splitlines(), anchor=anchor).count == 4


def test_an_empty_chain_is_whole() -> None:
    assert verify([]) == Anchor() == verify([], anchor=Anchor())


def edited(line: str, **changes: object) -> str:
    return json.dumps({**json.loads(line), **changes})


@pytest.mark.parametrize(
    ("name", "where", "words"),
    [
        ("changed", 2, "content does not match its hash"),
        ("removed", 2, "carries number 3"),
        ("swapped", 2, "carries number 3"),
        ("renumbered", 2, "does not follow the line before it"),
        ("doubled", 3, "carries number 2"),
        ("garbled", 2, "not JSON"),
        ("no record", 2, "not a record with a hash"),
        ("no hash", 2, "not a record with a hash"),
        ("first removed", 1, "carries number 2"),
    ],
)
def test_tampering_shows_at_its_line(chain: list[str], name: str, where: int, words: str) -> None:
    first, second, third, *rest = chain
    tampered = {
        "changed": [first, edited(second, body={"forged": True}), third, *rest],
        "removed": [first, third, *rest],
        "swapped": [first, third, second, *rest],
        "renumbered": [first, edited(third, seq=2), *rest],
        "doubled": [first, second, second, third],
        "garbled": [first, second[:-5], third],
        "no record": [first, "[]"],
        "no hash": [first, edited(second, hash=None)],
        "first removed": chain[1:],
    }
    with pytest.raises(AuditBrokenError, match=words) as caught:
        verify(tampered[name])
    assert caught.value.seq == where


def test_a_missing_end_shows_against_the_anchor(chain: list[str]) -> None:
    anchor = verify(chain)
    assert verify(chain[:3]).count == 3
    with pytest.raises(AuditBrokenError, match="chain ends after 3 lines, 5 were anchored"):
        verify(chain[:3], anchor=anchor)
    with pytest.raises(AuditBrokenError, match="the anchor says"):
        verify(chain, anchor=Anchor(3, "f" * 64))
    assert verify(chain, anchor=Anchor(3, json.loads(chain[2])["hash"])) == anchor


def test_a_rewritten_chain_shows_against_anchor_or_key(tmp_path: Path) -> None:
    with AuditSink(tmp_path / "real.jsonl", key=KEY) as real, AuditSink(tmp_path / "forged.jsonl") as forged:
        real.emit(AgentEvent.completed("r", "p", "paid 5"))
        forged.emit(AgentEvent.completed("r", "p", "paid 0"))
        lines = list(forged.lines())
        assert verify(lines) == forged.anchor
        with pytest.raises(AuditBrokenError):
            verify(lines, key=KEY)
        with pytest.raises(AuditBrokenError):
            verify(lines, anchor=real.anchor)
        assert verify(real.lines(), key=KEY) == real.anchor


def test_a_broken_file_is_not_continued(tmp_path: Path, chain: list[str]) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text("".join(chain[1:]))
    with pytest.raises(AuditBrokenError):
        AuditSink(path)


def test_threads_share_a_chain(tmp_path: Path) -> None:
    barrier = threading.Barrier(6)
    with AuditSink(tmp_path / "a.jsonl") as sink:

        def work(n: int) -> None:
            barrier.wait()
            for _ in range(20):
                sink.record(f"m{n}", UsageSnapshot(n), 0.5)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert verify(sink.lines()) == sink.anchor
        assert sink.anchor.count == 120
