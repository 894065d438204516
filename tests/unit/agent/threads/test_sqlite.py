"""Threads in a file: they outlive the process, other processes see them, and a broken file is said to be one.

What it shares with every store: test_store.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from techrevati.agent.threads import (
    CheckpointReason,
    Exact,
    Message,
    NotReadable,
    RunMeta,
    RunOrigin,
    RunStatus,
    SqliteThreadStore,
    StoreIo,
    Thread,
    ThreadChangeSet,
    VersionConflict,
)

OTHER_PROCESS = """
import asyncio, sys
from techrevati.agent.threads import *

async def write():
    with SqliteThreadStore(sys.argv[1]) as store:
        won = 0
        while True:
            loaded = await store.load("t")
            if loaded.version >= 40:
                return won
            said = ThreadChangeSet(
                run_id="r",
                reason=CheckpointReason.USER_MESSAGE,
                messages=(Message.user(f"{sys.argv[2]}-{loaded.version}"),),
            )
            try:
                await store.append("t", said, Exact(loaded.version))
                won += 1
            except VersionConflict:
                pass

print(asyncio.run(write()))
"""


def said(text: str) -> ThreadChangeSet:
    return ThreadChangeSet(run_id="r", reason=CheckpointReason.USER_MESSAGE, messages=(Message.user(text),))


async def test_threads_survive_the_process(tmp_path: Path) -> None:
    with SqliteThreadStore(tmp_path / "threads.db") as store:
        await store.create(Thread(id="t", state={"n": 1}))
        await store.append("t", said("hi"), Exact(0))
        before = await store.load("t")
    with SqliteThreadStore(tmp_path / "threads.db") as store:
        assert await store.load("t") == before


async def test_processes_share_a_file_and_no_version_is_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "threads.db"
    with SqliteThreadStore(path) as store:
        await store.create(Thread(id="t"))
        others = [
            subprocess.Popen([sys.executable, "-c", OTHER_PROCESS, str(path), name], stdout=subprocess.PIPE, text=True)
            for name in ("a", "b")
        ]
        won = [int(other.communicate(timeout=60)[0]) for other in others]
        loaded = await store.load("t")
        assert loaded is not None and loaded.version == 40 == sum(won) == len(loaded.thread.messages)
        versions = [int(message.content.split("-")[1]) for message in loaded.thread.messages]
        assert versions == list(range(40))


async def test_a_refused_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with SqliteThreadStore(tmp_path / "threads.db") as store:
        await store.create(Thread(id="t"))
        with pytest.raises(VersionConflict):
            await store.append("t", said("x"), Exact(3))
        last_statement = "CREATE TRIGGER full BEFORE UPDATE ON threads BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        store._database.execute(last_statement)
        meta = RunMeta("writer", RunOrigin.USER, RunStatus.RUNNING)
        with pytest.raises(StoreIo, match=r"writing thread 't' in .*threads\.db failed: disk is full"):
            await store.append("t", replace(said("x"), run_meta=meta), Exact(0))
        assert await store.message_count("t") == 0 and list(await store.load_deltas("t", 0)) == []
        assert await store.load_run("r") is None
        store._database.execute("DROP TRIGGER full")
        assert await store.append("t", said("x"), Exact(0)) == 1


async def test_what_cannot_be_opened_or_read_is_said_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(StoreIo, match=r"opening .*missing/threads.db failed"):
        SqliteThreadStore(tmp_path / "missing" / "threads.db")
    (tmp_path / "text.db").write_text("this is no database, " * 100)
    with pytest.raises(StoreIo, match=r"text\.db"):
        SqliteThreadStore(tmp_path / "text.db")
    with SqliteThreadStore(tmp_path / "threads.db") as store:
        await store.create(Thread(id="t"))
        store._database.execute("UPDATE threads SET origin = '{\"id\": 5}'")
        with pytest.raises(NotReadable, match=r"loading thread 't' in .*threads.db cannot be read"):
            await store.load("t")


async def test_an_append_does_not_read_the_thread(tmp_path: Path) -> None:
    """The steps of SQLite's machine for an append are as many after 400 others as after 20."""
    with SqliteThreadStore(tmp_path / "threads.db") as store:
        await store.create(Thread(id="t", state={"big": "x" * 100_000}))
        steps = {}
        for number in range(401):
            counted = Steps()
            store._database._connection.set_progress_handler(counted, 1)
            await store.append("t", said(str(number)), Exact(number))
            steps[number] = counted.seen
        assert steps[20] > 50 and abs(steps[400] - steps[20]) < 20, (steps[20], steps[400])


class Steps:
    """Counts, and lets SQLite go on."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self) -> int:
        self.seen += 1
        return 0
