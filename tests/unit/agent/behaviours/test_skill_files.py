"""Reading a skill's files, and running its scripts."""

import asyncio
import contextlib
import hashlib
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from techrevati.agent.behaviours.skills.files import BadResource, locate, read_text
from techrevati.agent.behaviours.skills.scripts import ScriptLimits, ScriptResult, interpreter, run_script

FOLDERS = ("references", "assets")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret", "utf-8")
    root = tmp_path / "skill"
    for folder in ("references/deep", "assets", "scripts"):
        (root / folder).mkdir(parents=True)
    (root / "SKILL.md").write_text("x", "utf-8")
    (root / "references" / "api.md").write_text("grüße", "utf-8")
    (root / "references" / "deep" / "more.md").write_text("more", "utf-8")
    (root / "assets" / "logo.bin").write_bytes(b"\xff\xfe\0\x80")
    return root


def test_12_3_a_resource_comes_with_its_digest(root: Path) -> None:
    found = read_text(root, "references/api.md", folders=FOLDERS, limit=100)
    assert (found.content, found.size, found.truncated) == ("grüße", 7, False)
    assert found.sha256 == hashlib.sha256("grüße".encode()).hexdigest()
    assert read_text(root, "references/deep/more.md", folders=FOLDERS, limit=100).content == "more"


@pytest.mark.parametrize(("limit", "content"), [(3, "gr"), (4, "grü"), (5, "grü"), (6, "grüß"), (7, "grüße"), (0, "")])
def test_12_3_a_long_resource_is_cut_between_characters_and_says_so(root: Path, limit: int, content: str) -> None:
    found = read_text(root, "references/api.md", folders=FOLDERS, limit=limit)
    assert found.content == content
    assert found.truncated is (limit < 7)
    assert found.sha256 == hashlib.sha256("grüße".encode()).hexdigest(), "of the whole file, also when it is cut"


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/etc/passwd", "SKILL.md", "../secret.txt", "references/../../secret.txt", "references/../SKILL.md",
     "references\\..\\..\\secret.txt", "references/api.md\0.txt", "scripts/x.py", "references", "references/none.md",
     "references/deep", "./../skill/../secret.txt", "references/" + "x" * 5000],
)  # fmt: skip
def test_12_3_no_path_leads_out_of_the_skill(root: Path, path: str) -> None:
    with pytest.raises(BadResource):
        locate(root, path, FOLDERS)


def test_12_3_no_link_leads_out_of_the_skill(root: Path) -> None:
    (root / "references" / "out.md").symlink_to(root.parent / "secret.txt")
    (root / "references" / "away").symlink_to(root.parent)
    (root / "references" / "beside.md").symlink_to(root / "SKILL.md")
    (root / "references" / "loop.md").symlink_to(root / "references" / "loop.md")
    for path in ("out.md", "away/secret.txt", "beside.md", "loop.md"):
        with pytest.raises(BadResource):
            locate(root, f"references/{path}", FOLDERS)


def test_12_3_a_link_inside_the_folder_is_followed(root: Path) -> None:
    (root / "references" / "alias.md").symlink_to("api.md")
    assert read_text(root, "references/alias.md", folders=FOLDERS, limit=99).content == "grüße"


def test_12_3_pipes_sockets_and_binaries_are_refused_without_waiting(root: Path) -> None:
    os.mkfifo(root / "references" / "pipe")
    (root / "assets" / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "assets" / "s"))
        for path in ("references/pipe", "assets/zero", "assets/s"):
            with pytest.raises(BadResource):
                read_text(root, path, folders=FOLDERS, limit=10)
    with pytest.raises(BadResource, match="not UTF-8 text"):
        read_text(root, "assets/logo.bin", folders=FOLDERS, limit=10)


async def run(root: Path, name: str, text: str, *arguments: str, **limits: float) -> ScriptResult:
    script = root / "scripts" / name
    script.write_text(text, "utf-8")
    bounds = ScriptLimits(**{"timeout": 20, **limits})  # type: ignore[arg-type]  # a test writes whole numbers
    return await run_script(script, arguments, directory=root, limits=bounds)


async def test_12_3_a_script_gives_exit_code_and_output(root: Path) -> None:
    code = "import sys, os; print(sys.argv[1:], os.getcwd()); print('oops', file=sys.stderr); sys.exit(3)"
    done = await run(root, "x.py", code, "a b", "$(id)")
    assert done == ScriptResult(3, f"['a b', '$(id)'] {root}\n", "oops\n", False, False, False)
    assert (await run(root, "x.sh", 'echo "$1"; kill -9 $$', "it's")).stdout == "it's\n"


async def test_12_3_a_script_sees_nothing_of_our_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert "secret" not in (await run(root, "x.sh", "env")).stdout


async def test_12_3_a_script_s_output_is_capped_and_still_drained(root: Path) -> None:
    code = "import sys; sys.stdout.write('a' * 3_000_000); sys.stderr.write('b' * 3_000_000)"
    done = await run(root, "x.py", code, output=1000)
    assert done.exit_code == 0
    assert (done.stdout, done.stderr) == ("a" * 1000, "b" * 1000)
    assert done.stdout_truncated
    assert done.stderr_truncated


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        await asyncio.sleep(0.01)


async def test_12_3_a_script_out_of_time_is_killed_with_all_it_started(root: Path) -> None:
    began = time.monotonic()
    done = await run(root, "x.sh", "trap '' TERM; sleep 300 & echo $!; wait", timeout=0.5)
    assert done.timed_out
    assert done.exit_code is None
    assert time.monotonic() - began < 5
    await until_gone(int(done.stdout))


async def test_12_3_what_a_script_leaves_behind_does_not_hold_us_up(root: Path) -> None:
    began = time.monotonic()
    done = await run(root, "x.sh", "sleep 300 & echo $!; exit 4")
    assert (done.exit_code, done.timed_out) == (4, False)
    assert time.monotonic() - began < 5
    await until_gone(int(done.stdout))


async def test_12_3_a_script_that_escapes_its_group_does_not_hold_us_up(root: Path) -> None:
    began = time.monotonic()
    code = "import os, time\nprint('on', flush=True)\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(4)"
    done = await run(root, "x.py", code)
    assert (done.exit_code, done.stdout) == (0, "on\n")
    assert time.monotonic() - began < 3.5


def at_work_in(folder: Path) -> list[str]:
    """Give the processes that run in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text("utf-8"))
    return found


async def test_12_3_a_run_that_is_cancelled_while_its_script_starts_ends_and_leaves_nothing(root: Path) -> None:
    for rounds in range(12):
        task = asyncio.create_task(run(root, "x.sh", "sleep 300"))
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await task
        deadline = time.monotonic() + 10
        while left := at_work_in(root):
            assert time.monotonic() < deadline, (rounds, left)
            await asyncio.sleep(0.01)


async def test_12_3_a_cancelled_run_kills_its_script(root: Path) -> None:
    note = root / "pid"
    task = asyncio.create_task(run(root, "x.sh", "echo $$ > pid; sleep 300"))
    deadline = time.monotonic() + 10
    while not note.exists() or not note.read_text("utf-8").strip():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_gone(int(note.read_text("utf-8")))


async def test_12_3_a_script_s_processor_time_and_files_are_bounded(root: Path) -> None:
    busy = await run(root, "x.py", "while True: pass", cpu=1)
    assert busy.exit_code is not None
    assert busy.exit_code < 0
    big = await run(root, "y.py", "open('big', 'wb').write(b'x' * 100_000)", file_size=8192)
    assert big.exit_code != 0
    assert (root / "big").stat().st_size <= 8192
    fat = await run(root, "z.py", "x = bytearray(2_000_000_000)", memory=1_000_000_000)
    assert "MemoryError" in fat.stderr


def test_12_3_a_script_runs_by_its_suffix_or_by_itself(root: Path) -> None:
    assert interpreter(Path("x.py"))[0] == sys.executable
    own = root / "scripts" / "tool"
    own.write_text("#!/bin/sh\n", "utf-8")
    with pytest.raises(BadResource, match="chmod"):
        interpreter(own)
    own.chmod(0o755)
    assert interpreter(own) == (str(own),)


async def test_12_3_an_argument_with_a_nul_is_refused(root: Path) -> None:
    with pytest.raises(BadResource, match="NUL"):
        await run(root, "x.sh", "true", "a\0b")


async def test_12_3_a_script_imports_what_lies_beside_it(root: Path) -> None:
    (root / "scripts" / "words.py").write_text("HELLO = 'hello'", "utf-8")
    assert (await run(root, "x.py", "from words import HELLO; print(HELLO)")).stdout == "hello\n"


def test_12_3_scripts_run_from_a_loop_in_any_thread(root: Path) -> None:
    found: list[ScriptResult] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(run(root, "x.sh", "echo hi"))))
    thread.start()
    thread.join(30)
    assert [done.stdout for done in found] == ["hi\n"]
