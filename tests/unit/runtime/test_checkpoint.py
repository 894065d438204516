"""Savers: one contract, two makes; keys, claims and fencing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from techrevati.runtime import Checkpoint, CheckpointSaver, InMemorySaver, ManualClock, SqliteSaver
from techrevati.runtime import _sqlite_saver as sqlite_module
from techrevati.runtime.checkpoint import (
    Done,
    Granted,
    Held,
    KeyedCheckpointSaver,
    StaleClaimError,
    _new_id,
)

Saver = InMemorySaver | SqliteSaver


@pytest.fixture(params=["memory", "sqlite", "sqlite-memory"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Saver]:
    if request.param == "memory":
        yield InMemorySaver()
        return
    with SqliteSaver(tmp_path / "c.db" if request.param == "sqlite" else ":memory:") as made:
        yield made


def test_both_makes_fulfil_both_protocols(saver: Saver) -> None:
    assert isinstance(saver, CheckpointSaver)
    assert isinstance(saver, KeyedCheckpointSaver)


def test_records_round_trip(saver: Saver) -> None:
    put = saver.put("t", {"a": [1, {"b": None}]}, parent_id="x", metadata={"m": 1})
    assert saver.get("t") == put
    assert saver.get("t", put.id) == put
    assert Checkpoint.from_dict(put.to_dict()) == put
    assert saver.put("t", {}).metadata == {}
    assert len(put.id) == 32
    int(put.id, 16)
    bare = Checkpoint.from_dict({"id": "i", "thread_id": "t", "created_at": "c", "state": None})
    assert (bare.state, bare.metadata) == ({}, {})
    with pytest.raises(KeyError):
        Checkpoint.from_dict({"id": "i"})


def test_threads_of_conversation_are_apart(saver: Saver) -> None:
    mine = saver.put("t", {"n": 1})
    saver.put("u", {"n": 2})
    assert saver.get("u", mine.id) is None
    assert saver.get("nobody") is None
    saver.delete("t")
    saver.delete("t")
    assert saver.get("t") is None
    assert saver.list("t") == []
    found = saver.get("u")
    assert found is not None
    assert found.state == {"n": 2}


def test_list_pages_newest_first_in_put_order(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "iso_now", lambda: "2026-01-01T00:00:00+00:00")
    ids = [saver.put("t", {"n": n}).id for n in range(30)]
    assert [record.id for record in saver.list("t", limit=5)] == ids[:-6:-1]
    assert [record.id for record in saver.list("t", before=ids[3], limit=9)] == ids[2::-1]
    assert len(saver.list("t")) == 10
    assert saver.list("t", limit=0) == saver.list("t", limit=-1) == []
    assert saver.list("t", before="unknown") == []
    assert saver.list("t", before=ids[0]) == []
    newest = saver.get("t")
    assert newest is not None
    assert newest.id == ids[-1]


def test_put_order_survives_a_clock_that_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "_REMEMBERED", 1)
    times = iter(["2026-01-02", "2026-01-01", "2026-01-03", "2026-01-01"])
    monkeypatch.setattr(sqlite_module, "iso_now", lambda: next(times))
    path = tmp_path / "c.db"
    for n in range(4):
        with SqliteSaver(path) as saver:
            saver.put("t", {"n": n})
    with SqliteSaver(path) as saver:
        assert [record.state["n"] for record in saver.list("t")] == [3, 2, 1, 0]


def test_savers_keep_copies(saver: Saver) -> None:
    state: dict[str, Any] = {"deep": {"list": [1]}}
    metadata: dict[str, Any] = {"tags": ["a"]}
    put = saver.put("t", state, metadata=metadata)
    state["deep"]["list"].append(2)
    metadata["tags"].append("b")
    put.state["deep"]["list"].append(3)
    first = saver.get("t")
    assert first is not None
    assert (first.state, first.metadata) == ({"deep": {"list": [1]}}, {"tags": ["a"]})
    first.state["deep"]["list"].append(4)
    listed = saver.list("t")[0]
    assert listed.state == {"deep": {"list": [1]}}


def test_memory_keeps_what_is_not_json_too() -> None:
    saver = InMemorySaver()
    saver.put("t", {"s": {1, 2}, "t": (1,)})
    found = saver.get("t")
    assert found is not None
    assert found.state == {"s": {1, 2}, "t": (1,)}


def test_sqlite_refuses_what_is_not_json(tmp_path: Path) -> None:
    with SqliteSaver(tmp_path / "c.db") as saver, pytest.raises(TypeError):
        saver.put("t", {"x": object()})


def test_keys_are_found_however_old(saver: Saver) -> None:
    saver.put("t", {"n": 0}, metadata={"idempotency_key": "k"})
    for n in range(300):
        saver.put("t", {"n": n + 1})
    found = saver.find("t", "k")
    assert found is not None
    assert found.state == {"n": 0}
    saver.put("t", {"n": "newer"}, metadata={"idempotency_key": "k"})
    newer = saver.find("t", "k")
    assert newer is not None
    assert newer.state == {"n": "newer"}
    assert saver.find("u", "k") is None
    assert saver.find("t", "") is None
    saver.delete("t")
    assert saver.find("t", "k") is None


def test_one_owner_at_a_time_and_fencing(saver: Saver) -> None:
    clock = ManualClock()
    saver._clock = clock
    first = saver.claim("t", "k", owner="a", ttl=10)
    assert isinstance(first, Granted)
    held = saver.claim("t", "k", owner="b", ttl=10)
    assert isinstance(held, Held)
    assert held.remaining == pytest.approx(10)
    assert isinstance(saver.claim("t", "other", owner="b", ttl=10), Granted)
    clock.advance(11)
    second = saver.claim("t", "k", owner="b", ttl=10)
    assert isinstance(second, Granted)
    assert second.token > first.token
    with pytest.raises(StaleClaimError) as caught:
        saver.put_claimed("t", "k", {"by": "a"}, token=first.token)
    assert (caught.value.held, caught.value.current) == (first.token, second.token)
    saver.release("t", "k", token=first.token)
    assert isinstance(saver.claim("t", "k", owner="c", ttl=10), Held)
    stored = saver.put_claimed("t", "k", {"by": "b"}, token=second.token, metadata={"m": 1})
    assert stored.metadata == {"m": 1, "idempotency_key": "k"}
    done = saver.claim("t", "k", owner="c", ttl=10)
    assert isinstance(done, Done)
    assert done.checkpoint == stored == saver.find("t", "k")
    with pytest.raises(StaleClaimError) as again:
        saver.put_claimed("t", "k", {}, token=second.token)
    assert again.value.current == 0


def test_released_and_reclaimed_tokens_keep_growing(saver: Saver) -> None:
    tokens = []
    for owner in ("a", "b", "b"):
        claim = saver.claim("t", "k", owner=owner, ttl=10)
        assert isinstance(claim, Granted)
        tokens.append(claim.token)
        if owner == "a":
            saver.release("t", "k", token=claim.token)
    saver.delete("t")
    claim = saver.claim("t", "k", owner="z", ttl=10)
    assert isinstance(claim, Granted)
    tokens.append(claim.token)
    assert tokens == sorted(set(tokens))


def test_files_of_the_older_program_open_and_replay(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old = sqlite3.connect(path)
    old.executescript(
        "CREATE TABLE checkpoints (id TEXT PRIMARY KEY, thread_id TEXT NOT NULL, created_at TEXT NOT NULL,"
        " state_json TEXT NOT NULL, parent_id TEXT, metadata_json TEXT NOT NULL);"
        "CREATE INDEX idx_checkpoints_thread_created ON checkpoints (thread_id, created_at DESC);"
    )
    old.execute(
        "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?)",
        ("i", "t", "2025-01-01", '{"n": 1}', None, '{"idempotency_key": "k"}'),
    )
    old.commit()
    old.close()
    for _ in range(2):
        with SqliteSaver(str(path)) as saver:
            found = saver.find("t", "k")
            assert found is not None
            assert found.state == {"n": 1}
            assert isinstance(saver.claim("t", "k", owner="a", ttl=1), Done)
            assert saver.find("t", "nope") is None
            saver.put("t", {"n": 2})
            newest = saver.get("t")
            assert newest is not None
            assert newest.state == {"n": 2}
            saver.close()


def test_the_file_has_the_documented_shape(tmp_path: Path) -> None:
    SqliteSaver(tmp_path / "c.db").close()
    raw = sqlite3.connect(tmp_path / "c.db")
    columns = [row[1] for row in raw.execute("PRAGMA table_info(checkpoints)")]
    assert columns[:6] == ["id", "thread_id", "created_at", "state_json", "parent_id", "metadata_json"]
    names = {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert "idx_checkpoints_thread_created" in names
    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    plan = raw.execute(
        "EXPLAIN QUERY PLAN SELECT id FROM checkpoints WHERE thread_id = 't'"
        " ORDER BY created_at DESC, rowid DESC LIMIT 1"
    ).fetchall()
    assert "idx_checkpoints_thread_created" in plan[0][3]
    for condition in ("= 'k'", "IS NULL"):
        plan = raw.execute(
            f"EXPLAIN QUERY PLAN SELECT id FROM checkpoints {sqlite_module._KEYED} {condition}"
            " ORDER BY created_at DESC, rowid DESC LIMIT 1",
            ("t",),
        ).fetchall()
        assert "idx_checkpoints_key" in plan[0][3], plan
    raw.close()


def test_ids_are_unique() -> None:
    assert len({_new_id() for _ in range(10_000)}) == 10_000


def test_threads_share_a_saver(saver: Saver) -> None:
    barrier = threading.Barrier(6)
    wins: list[int] = []

    def work(n: int) -> int:
        barrier.wait()
        for step in range(15):
            saver.put(f"t{n % 2}", {"n": step})
            saver.list("t0", limit=3)
            claim = saver.claim("shared", f"k{step}", owner=f"o{n}", ttl=60)
            if isinstance(claim, Granted):
                wins.append(step)
                saver.put_claimed("shared", f"k{step}", {"by": n}, token=claim.token)
        return 15

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 90
    assert sorted(wins) == list(range(15))
    assert len(saver.list("t0", limit=100)) == len(saver.list("t1", limit=100)) == 45


RACER = """
import sys
from techrevati.runtime.checkpoint import Granted, SqliteSaver
with SqliteSaver(sys.argv[1]) as saver:
    for n in range(15):
        saver.put("t", {"n": n})
        claim = saver.claim("t", f"k{n}", owner=sys.argv[2], ttl=60)
        if isinstance(claim, Granted):
            saver.put_claimed("t", f"k{n}", {"by": sys.argv[2]}, token=claim.token)
            print(n)
"""


def test_processes_race_for_a_new_file_and_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(path), str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    won = [int(line) for racer in racers for line in racer.communicate(timeout=60)[0].split()]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sorted(won) == list(range(15))
    with SqliteSaver(path) as saver:
        assert len(saver.list("t", limit=1000)) == 60


def test_two_processes_worth_of_connections_share_a_file(tmp_path: Path) -> None:
    one, two = SqliteSaver(tmp_path / "c.db"), SqliteSaver(tmp_path / "c.db")
    grant = one.claim("t", "k", owner="one", ttl=60)
    assert isinstance(grant, Granted)
    assert isinstance(two.claim("t", "k", owner="two", ttl=60), Held)
    one.put_claimed("t", "k", {"v": 1}, token=grant.token)
    assert isinstance(two.claim("t", "k", owner="two", ttl=60), Done)
    one.close()
    two.close()
