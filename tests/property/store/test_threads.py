"""Threads forked, deleted and begun again, while their runs come and go: the scripts and their twin."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from techrevati.store import calls
from techrevati.store.calls import ClaimSpec, CommitSpec, StartSpec, Suspended
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.records import OnBusy
from techrevati.store.twin.records import Run
from tests.property.store.conftest import profile
from tests.property.store.worlds import S, Side, Worlds, nth

ENDS = ("complete", "fail", "dead")


class Threads(Worlds):
    """Two threads of one tenant, sub-agents, and whole turns: little else, so that much happens to each."""

    @initialize(turns=st.integers(1, 4))
    def begin(self, turns: int) -> None:
        self.start("essay", OnBusy.ENQUEUE, "")
        for n in range(turns):
            self.turn(0, "continue", n % 3, "f" if n == 0 else "d")

    @rule(
        thread=st.sampled_from(("essay", "poem")),
        policy=st.sampled_from(OnBusy),
        idem=st.sampled_from(("", "k1", "k3")),
    )
    def start(
        self,
        thread: str,
        policy: OnBusy,
        idem: str,
        parent: Run | None = None,
        token: str = "",
        agent: str = "writer",
        detached: bool = False,
    ) -> None:
        run_id = f"run{next(self.ids)}"
        spec = StartSpec(
            run_id=run_id,
            tenant="acme",
            thread_id=thread if parent is None else f"sub-agent-{run_id}",
            role="writer",
            agent=agent,
            payload_digest="p",
            on_busy=policy,
            idem=idem,
            idem_key=idem,
            parent=parent.id if parent else "",
            parent_token=token or (parent.token if parent else ""),
            line_max=3,
            fields={"detached": "1"} if detached else {},
        )
        self.say(calls.start(self.keys, spec))

    @precondition(lambda self: any(not run.is_terminal for run in self.twin.runs.values()))
    @rule(n=nth, detached=st.sampled_from((True, False, False)))
    def start_child(self, n: int, detached: bool) -> None:
        alive = [run for run in self.twin.runs.values() if not run.is_terminal]
        self.start("", OnBusy.ENQUEUE, "", parent=alive[n % len(alive)], detached=detached)

    @precondition(lambda self: any(run.calls for run in self.twin.runs.values()))
    @rule(n=nth, at=nth, call_id=st.sampled_from(("c1", "c1", "c2", "x1")), named=st.booleans(), entry=nth)
    def decide_from_above(self, n: int, at: int, call_id: str, named: bool, entry: int) -> None:
        """Decide a call of a run, through it or through one that stands above it; sometimes naming it."""
        asking = [run for run in self.twin.runs.values() if run.calls]
        run = asking[n % len(asking)]
        way = [run.id, *(up.id for up in self.twin.runs.values() if run.id in up.asking)]
        to = way[-1 - at % len(way)]
        name = f"{run.id}/{call_id}" if named else call_id
        body = '{"call_id":"c1","action":"resume","payload":0}'
        self.say(calls.inbox_put(self.keys, to, f"d{entry % 6}", "decision", name, body))

    @precondition(lambda self: self.twin.runs)
    @rule(
        n=nth,
        move=st.sampled_from(("continue", "continue", "suspend", "join", "join", *ENDS)),
        messages=st.integers(0, 3),
        kind=st.sampled_from(("", "d", "f")),
    )
    def turn(self, n: int, move: str, messages: int, kind: str) -> None:
        """Take a turn: of what is held, or of what is ready."""
        if not any(run.is_leased for run in self.twin.runs.values()):
            self.claim()
        held = [run for run in self.twin.runs.values() if run.is_leased]
        if not held:
            return
        run = held[n % len(held)]
        ends: dict[str, Any] = {"body": "{}"}
        if move == "suspend":
            expires = "+3000000" if n % 3 else ""
            asked = Suspended(call_id="c1", aliases=("x1", ""), expires=expires, default='{"call_id":"c1"}')
            ends = {"calls": [asked], "body": '[{"call_id":"c1"}]'}
        if move == "join":
            move, ends = "suspend", {"body": "[]", "target": str(1 + n % 3), "when": "+9000000" if n % 4 else ""}
        spec = CommitSpec(
            run_id=run.id,
            token=run.token,
            move=move,
            worker="w1",
            state_kind=kind,
            state='{"s":1}' if kind else "",
            keep_from="2" if kind == "f" and n % 2 else "",
            bytes=7 * messages,
            messages=[f'{{"m":{next(self.ids)}}}' for _ in range(messages)],
            inbox=sorted(run.inbox)[: n % 3],
            **ends,
        )
        self.say(calls.commit(self.keys, spec))

    @precondition(lambda self: any(run.is_leased for run in self.twin.runs.values()))
    @rule(
        n=nth,
        open=st.integers(1, 3),
        steered=st.booleans(),
        agent=st.sampled_from(("writer", "tool:x")),
        then=st.sampled_from(("complete", "continue", "ask")),
    )
    def send_out(self, n: int, open: int, steered: bool, agent: str, then: str) -> None:
        """Start two children (and one by whoever lost the lease), wait for `open` ends; they end, go on, or ask."""
        held = [run for run in self.twin.runs.values() if run.is_leased]
        run = held[n % len(held)]
        for token in (run.token, run.token, "1.stale"):
            self.start("", OnBusy.ENQUEUE, "", parent=run, token=token, agent=agent)
        if steered:
            self.say(calls.inbox_put(self.keys, run.id, f"steer{next(self.ids)}", "steer", "", '"x"'))
        read = [] if steered else sorted(run.inbox)
        spec = CommitSpec(run_id=run.id, token=run.token, move="suspend", worker="w1", target=str(open), inbox=read)
        self.say(calls.commit(self.keys, spec))
        for _ in range(4):
            self.claim()
            for kid in [one for one in self.twin.runs.values() if one.is_leased and one.parent == run.id]:
                for count in (1, 2):
                    self.say(calls.live_append(self.keys, kid.id, kid.token, 1000, 600_000, [("text", "1")] * count))
                over = CommitSpec(run_id=kid.id, token=kid.token, move="complete", worker="w1", body="1")
                if then == "continue":
                    over = replace(over, move="continue", body="")
                if then == "ask":
                    over = replace(over, move="suspend", body="[]", calls=[Suspended(call_id="c1")])
                self.say(calls.commit(self.keys, over))

    @rule()
    def claim(self) -> None:
        role = next((role.name for role in self.twin.roles.values() if role.ready), "writer")
        spec = ClaimSpec(role=role, claim_id=f"claim{next(self.ids)}", worker="w1", ttl_us=15 * S)
        self.say(calls.claim(self.keys, spec))

    @precondition(lambda self: any(run.is_terminal for run in self.twin.runs.values()))
    @rule(n=nth)
    def retry(self, n: int) -> None:
        ended = [run.id for run in self.twin.runs.values() if run.is_terminal]
        self.say(calls.retry(self.keys, ended[n % len(ended)], 3))

    @precondition(lambda self: any(len(thread.runs) > 1 for thread in self.twin.threads.values()))
    @rule(n=nth, limit=st.sampled_from((1, 2)))
    def delete_piece_by_piece(self, n: int, limit: int) -> None:
        """Delete a thread with several runs, begin it again, and send back what is left of the old one."""
        grown = [thread for thread in self.twin.threads.values() if len(thread.runs) > 1]
        thread = grown[n % len(grown)]
        self.delete(list(self.twin.threads).index((thread.tenant, thread.id)), True, limit, True)
        if thread.id in ("essay", "poem"):
            self.start(thread.id, OnBusy.ENQUEUE, "")
        for left in [run_id for runs in self.twin.drops.values() for run_id in runs]:
            self.say(calls.retry(self.keys, left, 3))

    @rule(limit=st.sampled_from((1, 2, 128)), seconds=st.sampled_from((0.0, 0.02, 16.0)))
    def sweep(self, limit: int, seconds: float) -> None:
        self.now += round(seconds * S)
        self.say(calls.sweep(self.keys, limit=limit))


def test_forked_and_deleted_threads_are_the_same_in_both_worlds(server: EmbeddedRedis) -> None:
    side = Side(server)
    with side.store:
        run_state_machine_as_test(lambda: Threads(side), settings=profile())  # type: ignore[arg-type]
