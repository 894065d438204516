"""Starting: one run for one key, and what a start does to a thread that is busy (protocol 1, 2, 9)."""

import json
import subprocess
import sys

import pytest

from techrevati.store import errors
from techrevati.store.calls import Suspended, after
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.records import OnBusy
from tests.integration.store.desk import Desk, S

RACER = """
import sys, threading
from tests.integration.store.desk import Desk
url, fleet, name = sys.argv[1:]
desk, found, gate = Desk(url, fleet), [], threading.Barrier(13)
def start(n):
    gate.wait()
    found.append(desk.start(f"{name}-{n}", idem="one-key").run_id)
threads = [threading.Thread(target=start, args=(n,)) for n in range(13)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(" ".join(found))
"""


def test_start_with_one_key_from_many_processes_makes_one_run(desk: Desk, server: EmbeddedRedis) -> None:
    command = [sys.executable, "-c", RACER, server.url, desk.keys.fleet]
    racers = [
        subprocess.Popen([*command, f"p{n}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    answers: list[str] = []
    for racer in racers:
        out, err = racer.communicate(timeout=60)
        assert racer.returncode == 0, err
        answers += out.split()
    assert len(answers) == 52
    assert len(set(answers)) == 1
    assert list(desk.whole().runs) == [answers[0]]


def test_the_same_key_for_something_else_is_a_conflict(desk: Desk) -> None:
    first = desk.start(idem="k", payload="one")
    with pytest.raises(errors.IdempotencyConflict) as conflict:
        desk.start(idem="k", payload="two")
    assert conflict.value.run_id == first.run_id


def test_a_key_is_kept_for_the_run_and_a_day(desk: Desk) -> None:
    desk.start(idem="k")
    assert desk.store.command("PTTL", desk.keys.idem("k")) == -1
    desk.commit(desk.claim(), "complete", body="1")
    assert 86_000_000 < desk.store.command("PTTL", desk.keys.idem("k")) <= 86_400_000
    assert not desk.start(idem="k").created


def test_a_start_sent_again_gets_the_same_answer(desk: Desk) -> None:
    assert desk.start("r1").created
    assert not desk.start("r1").created
    assert desk.kinds("r1") == ["run.queued"]


def test_tenants_share_no_thread(desk: Desk) -> None:
    mine, yours = desk.start(tenant="acme").run_id, desk.start(tenant="zeta").run_id
    assert {desk.see(run).home for run in (mine, yours)} == {"ready"}


def test_reject_refuses_a_busy_thread(desk: Desk) -> None:
    first = desk.start()
    with pytest.raises(errors.ThreadBusy) as busy:
        desk.start(on_busy=OnBusy.REJECT)
    assert busy.value.active == first.run_id


def test_enqueue_waits_in_line_in_order(desk: Desk) -> None:
    runs = [desk.start().run_id for _ in range(3)]
    assert [desk.see(run).home for run in runs] == ["ready", "line", "line"]
    done = []
    for _ in runs:
        grant = desk.claim()
        desk.commit(grant, "complete", body="1")
        done.append(grant.run_id)
    assert done == runs


def test_a_full_line_is_refused(desk: Desk) -> None:
    for _ in range(3):
        desk.start(line_max=2)
    with pytest.raises(errors.LineFull):
        desk.start(line_max=2)


def test_a_run_in_line_with_a_later_begin_stays_due_when_promoted(desk: Desk) -> None:
    first, later = desk.start().run_id, desk.start(begin=after(60 * S)).run_id
    desk.cancel(first)
    assert (desk.see(later).home, desk.see(later).why) == ("due", "start")
    desk.wait(61)
    desk.sweep()
    assert desk.claim().run_id == later


@pytest.mark.parametrize("in_line", [1, 100])
def test_interrupt_ends_the_active_run_and_its_line(desk: Desk, in_line: int) -> None:
    runs = [desk.start().run_id for _ in range(in_line + 1)]
    grant = desk.claim()
    assert grant.run_id == runs[0]
    new = desk.start(on_busy=OnBusy.INTERRUPT).run_id
    whole = desk.whole()
    assert {whole.runs[run].status for run in runs} == {"superseded"}
    assert whole.runs[new].home == "ready"
    with pytest.raises(errors.LeaseLost):
        desk.commit(grant)
    assert desk.renew(grant) == [0]


def test_interrupt_keeps_what_was_committed(desk: Desk) -> None:
    desk.start()
    desk.commit(desk.claim(), messages=['"hello"'], state_kind="f", state='{"a":1}')
    desk.start(on_busy=OnBusy.INTERRUPT)
    thread = desk.thread()
    assert (thread.version, thread.spans, thread.messages) == (1, "0:", ['"hello"'])


def test_a_new_message_ends_a_suspended_run(desk: Desk) -> None:
    waiting = desk.start().run_id
    desk.suspend(desk.claim(), Suspended(call_id="c1"))
    new = desk.start().run_id
    assert desk.see(waiting).status == "superseded"
    assert desk.see(new).home == "ready"


def test_a_start_without_messages_waits_behind_a_suspended_run(desk: Desk) -> None:
    waiting = desk.start().run_id
    desk.suspend(desk.claim(), Suspended(call_id="c1"))
    new = desk.start(messages=False).run_id
    assert desk.see(waiting).status == "waiting"
    assert desk.see(new).home == "line"


def test_a_message_behind_a_line_ends_the_suspended_run_and_takes_its_turn(desk: Desk) -> None:
    desk.start()
    desk.suspend(desk.claim(), Suspended(call_id="c1"))
    second = desk.start(messages=False).run_id
    third = desk.start().run_id
    assert [desk.see(run).home for run in (second, third)] == ["ready", "line"]


def test_a_delayed_start_is_claimable_when_its_time_has_come(desk: Desk) -> None:
    desk.start(begin=after(5 * S))
    assert desk.ask().grant is None
    assert desk.sweep().next_us == desk.now + 5 * S
    desk.wait(5)
    assert desk.sweep().moved == 1
    desk.claim()


def test_a_passed_deadline_ends_a_run_wherever_it_is(desk: Desk) -> None:
    waiting = desk.start(thread="t1", deadline=after(5 * S)).run_id
    running = desk.start(thread="t2", tenant="zeta", deadline=after(5 * S)).run_id
    while desk.claim().run_id != running:
        pass
    desk.wait(6)
    desk.sweep()
    for run in (waiting, running):
        assert desk.see(run).status == "failed"
        assert json.loads(desk.see(run).error)["type"] == "DeadlineExceeded"


def test_an_ended_run_and_an_idle_thread_are_forgotten_in_time(desk: Desk) -> None:
    run = desk.start().run_id
    desk.commit(desk.claim(), "complete", body="1", messages=['"x"'])
    for key in (desk.keys.run(run), desk.keys.events(run), desk.keys.thread("acme", "essay")):
        assert desk.store.command("PTTL", key) > 0
    desk.start("next")
    for key in ("thread", "messages", "checkpoints"):
        assert desk.store.command("PTTL", getattr(desk.keys, key)("acme", "essay")) == -1, key
    desk.wait(8 * 24 * 3600)
    desk.sweep()
    assert run not in desk.whole().created


def test_a_thread_remembers_a_fence_that_only_grows(desk: Desk) -> None:
    desk.start()
    first = desk.claim()
    desk.commit(first)
    second = desk.claim()
    assert int(second.token.split(".")[0]) > int(first.token.split(".")[0])
