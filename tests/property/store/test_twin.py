"""The scripts and their twin, side by side: the same calls, the same replies, the same records, step by step."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from techrevati.store import calls
from techrevati.store.calls import ClaimSpec, CommitSpec, StartSpec, Suspended
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.records import OnBusy
from tests.property.store.conftest import profile
from tests.property.store.worlds import BEGIN, S, Side, Worlds, nth

TTL = 15 * S
TEMPLATE = '{"id":"@TICKET@"}'
TENANTS, ROLES, WORKERS, THREADS = ("acme", "zeta"), ("writer", "editor"), ("w1", "w2", "w3"), ("essay", "poem")

tenants, roles, workers, threads = map(st.sampled_from, (TENANTS, ROLES, WORKERS, THREADS))
whens = st.sampled_from(("", "+0", "+5000000", f"={BEGIN + 30 * S}"))
waits = st.sampled_from(("+0", "+5000000", f"={BEGIN + 20 * S}"))
call_ids = st.sampled_from(("c1", "c2", "tool-1", "tool-2", "ext-1"))
journals = st.lists(st.tuples(st.sampled_from(("k1", "k2")), st.sampled_from(('"a"', '"b"'))), max_size=2)


class BothWorlds(Worlds):
    """Everything that can be said to a partition."""

    # Rules.

    @initialize(places=st.integers(0, 3), template=st.sampled_from(("", TEMPLATE)), capped=st.booleans())
    def pools(self, places: int, template: str, capped: bool) -> None:
        self.weigh("zeta", 2.0)
        if places:
            self.beat("writer", "w1", places, template)
        for thread in THREADS:
            self.begin("acme", thread)
        self.begin("zeta", "essay")
        if capped:
            self.cap("writer", 1)
        self.claim(role="writer", worker="w1", lane_free=True, ticket=False, inline=16384)

    def begin(self, tenant: str, thread: str) -> None:
        """Start a run of the plain kind."""
        more = {"role": "writer", "payload": "p", "messages": True, "begin": "", "deadline": ""}
        self.start(tenant, thread, None, OnBusy.ENQUEUE, "", **more, priority=0, attempts=2)

    @rule(
        tenant=tenants,
        thread=threads,
        role=roles,
        policy=st.sampled_from(OnBusy),
        messages=st.booleans(),
        idem=st.sampled_from(("", "", "", "k1", "k2")),
        payload=st.sampled_from(("p", "p", "q")),
        begin=whens,
        deadline=st.sampled_from(("", "", "", "+30000000")),
        priority=st.integers(0, 1),
        attempts=st.integers(1, 3),
        parent=st.none() | st.none() | nth,
        call=st.booleans(),
    )
    def start(self, tenant: str, thread: str, parent: int | None, policy: OnBusy, idem: str, **more: Any) -> None:
        run_id = f"run{next(self.ids)}"
        alive = [run.id for run in self.twin.runs.values() if not run.is_terminal]
        above = alive[parent % len(alive)] if parent is not None and alive else ""
        spec = StartSpec(
            run_id=run_id,
            tenant=tenant,
            thread_id=f"sub-agent-{above}" if above else thread,
            role=more["role"],
            agent="tool:x" if above and more["call"] else more["role"],
            payload_digest=more["payload"],
            on_busy=policy,
            has_messages=more["messages"],
            idem=idem,
            idem_key=idem,
            begin=more["begin"],
            deadline=more["deadline"],
            priority=more["priority"],
            max_attempts=more["attempts"],
            parent=above,
            line_max=2,
            fields={"input": '{"a":[]}', **({"winds": "1"} if more["priority"] else {})},
        )
        self.say(calls.start(self.keys, spec))

    def spec(self, role: str, worker: str, lane_free: bool, ticket: bool, inline: int) -> ClaimSpec:
        return ClaimSpec(
            role=role,
            claim_id=f"claim{next(self.ids)}",
            worker=worker,
            ttl_us=TTL,
            lane_free=lane_free,
            from_ticket=ticket,
            inline=inline,
        )

    @rule(
        role=roles,
        worker=workers,
        lane_free=st.booleans(),
        ticket=st.booleans(),
        inline=st.sampled_from((0, 16384)),
    )
    def claim(self, **how: Any) -> None:
        if not any(role.name == how["role"] and role.ready for role in self.twin.roles.values()):
            how["role"] = next((role.name for role in self.twin.roles.values() if role.ready), how["role"])
        self.say(calls.claim(self.keys, self.spec(**how)))

    @precondition(lambda self: any(role.ready for role in self.twin.roles.values()))
    @rule(worker=workers, inline=st.sampled_from((0, 16384)))
    def claim_what_is_ready(self, worker: str, inline: int) -> None:
        self.claim(role="writer", worker=worker, lane_free=True, ticket=True, inline=inline)

    @precondition(lambda self: self.grants)
    @rule(
        n=nth,
        move=st.sampled_from(
            (
                "continue",
                "continue",
                "sleep",
                "park",
                "retry",
                "suspend",
                "suspend",
                "handoff",
                "complete",
                "fail",
                "dead",
            )
        ),
        wait=waits,
        why=st.sampled_from(("timer", "model:m", "child")),
        kind=st.sampled_from(("", "d", "f")),
        worker=workers,
        messages=st.lists(st.sampled_from(('{"m":1}', '{"m":2}')), max_size=2),
        read=st.sampled_from(("all", "some", "none")),
        asked=st.sampled_from((("c1",), ("c2",), ("c1", "c2"), ())),
        open=st.integers(0, 3),
        expires=st.sampled_from(("", "+3000000")),
        cost=st.sampled_from(("", "1.5", "-0.5")),
        usage=st.sampled_from(("", "1 2 3")),
        keep=st.sampled_from(("", "1", "3")),
        journal=journals,
        fused=st.sampled_from(("", "", "then", "ticket")),
    )
    def commit(self, n: int, move: str, **of: Any) -> None:
        run_id, token = self.grant(n)
        run = self.twin.runs.get(run_id)
        entries = sorted(run.inbox) if run else []
        read = {"all": entries, "some": entries[:1], "none": []}[of["read"]]
        # One canonical id, and two others under which the same call may be decided.
        asked = [
            Suspended(
                call_id=call_id,
                aliases=(f"tool-{call_id[1]}", "ext-1" if call_id == "c1" else ""),
                expires=of["expires"],
                default='{"action":"cancel"}',
            )
            for call_id in (of["asked"] if move == "suspend" else ())
        ]
        spec = CommitSpec(
            run_id=run_id,
            token=token,
            move=move,
            worker=of["worker"],
            when=of["wait"] if move in ("sleep", "park", "retry") else of["expires"] if move == "suspend" else "",
            target={"park": of["why"], "retry": "Timeout", "handoff": "editor", "suspend": str(of["open"])}.get(
                move, ""
            ),
            body='{"x":[]}',
            state_kind=of["kind"],
            state='{"s":1}' if of["kind"] else "",
            cost=of["cost"],
            usage=of["usage"],
            keep_from=of["keep"],
            bytes=7,
            messages=of["messages"],
            events=[("note", '{"n":1}')] if of["usage"] else [],
            inbox=read,
            calls=asked,
            journal=of["journal"],
        )
        role, ticket = run.role if run else "writer", of["fused"] == "ticket"
        then = self.spec(role, of["worker"], not ticket, ticket, 0) if of["fused"] else None
        self.say(calls.commit(self.keys, spec, then))

    def plain(self, n: int, move: str, **of: Any) -> None:
        """Commit a turn that did nothing else."""
        made: dict[str, Any] = {
            "kind": "d",
            "worker": "w1",
            "messages": ['{"m":3}'],
            "read": "all",
            "cost": "",
            "usage": "",
        }
        made |= {
            "wait": "+0",
            "why": "",
            "asked": ("c1", "c2"),
            "expires": "",
            "keep": "",
            "journal": [],
            "fused": "",
            "open": 0,
        }
        self.commit(n, move, **{**made, **of})

    @precondition(lambda self: any(run.is_leased for run in self.twin.runs.values()))
    @rule(n=nth, asked=st.sampled_from((("c1",), ("c1", "c2"))), expires=st.sampled_from(("", "+3000000")))
    def suspend(self, n: int, asked: tuple[str, ...], expires: str) -> None:
        self.plain(n, "suspend", asked=asked, expires=expires)

    @precondition(lambda self: any(run.is_leased for run in self.twin.runs.values()))
    @rule(n=nth)
    def hand_off(self, n: int) -> None:
        self.plain(n, "handoff")

    @precondition(lambda self: any(run.is_leased for run in self.twin.runs.values()))
    @rule(
        n=nth,
        fused=st.sampled_from(("", "then", "ticket")),
        kind=st.sampled_from(("", "d", "f")),
        keep=st.sampled_from(("", "1", "3")),
    )
    def go_on(self, n: int, fused: str, kind: str, keep: str) -> None:
        self.plain(n, "continue", fused=fused, kind=kind, keep=keep)

    @precondition(lambda self: self.grants)
    @rule(n=nth, journal=journals)
    def release(self, n: int, journal: list[tuple[str, str]]) -> None:
        self.say(calls.release(self.keys, *self.grant(n), journal))

    @precondition(lambda self: self.grants)
    @rule(ns=st.lists(nth, min_size=1, max_size=3))
    def renew(self, ns: list[int]) -> None:
        self.say(calls.renew(self.keys, TTL, [self.grant(n) for n in ns]))

    @precondition(lambda self: self.grants)
    @rule(n=nth, key=st.sampled_from(("k1", "k2")), policy=st.sampled_from(("once", "rerun")), journal=journals)
    def begin_step(self, n: int, key: str, policy: str, journal: list[tuple[str, str]]) -> None:
        self.say(calls.step_begin(self.keys, *self.grant(n), key, policy, journal))

    @precondition(lambda self: self.grants)
    @rule(n=nth, key=st.sampled_from(("k1", "k2")), journal=journals)
    def end_step(self, n: int, key: str, journal: list[tuple[str, str]]) -> None:
        self.say(calls.step_end(self.keys, *self.grant(n), [*journal, (key, '"done"')]))

    @precondition(lambda self: self.grants)
    @rule(n=nth, count=st.integers(1, 3))
    def stream(self, n: int, count: int) -> None:
        deltas = [("text", f'"{piece}"') for piece in range(count)]
        self.say(calls.live_append(self.keys, *self.grant(n), 1000, 600_000, deltas))

    @precondition(lambda self: self.twin.runs)
    @rule(n=nth, call_id=call_ids, quiet=st.booleans())
    def decide(self, n: int, call_id: str, quiet: bool) -> None:
        entry = f"{'~' if quiet else ''}decision{next(self.ids)}"
        self.say(calls.inbox_put(self.keys, self.run_id(n), entry, "decision", call_id, '{"ok":true}'))

    @precondition(lambda self: self.twin.runs)
    @rule(n=nth, quiet=st.booleans())
    def steer(self, n: int, quiet: bool) -> None:
        entry = f"{'~' if quiet else ''}steer{next(self.ids)}"
        self.say(calls.inbox_put(self.keys, self.run_id(n), entry, "steer", "", '"left"'))

    @precondition(lambda self: sum(not run.is_terminal for run in self.twin.runs.values()) > 3)
    @rule(n=nth, grace=st.sampled_from((1000, 10 * S)))
    def cancel(self, n: int, grace: int) -> None:
        self.say(calls.cancel(self.keys, self.run_id(n), "enough", grace))

    @precondition(lambda self: any(run.is_leased for run in self.twin.runs.values()))
    @rule(n=nth)
    def cancel_at_work(self, n: int) -> None:
        held = [run.id for run in self.twin.runs.values() if run.is_leased]
        self.say(calls.cancel(self.keys, held[n % len(held)], "enough", 60 * S))

    @precondition(lambda self: any(run.is_leased for run in self.twin.runs.values()))
    @rule()
    def lose_the_workers(self) -> None:
        self.pass_time(16.0)
        self.sweep(128, True)

    @precondition(lambda self: any(run.is_leased for run in self.twin.runs.values()))
    @rule(n=nth)
    def roll_back(self, n: int) -> None:
        """Start over on a thread that a turn is running on."""
        held = [run for run in self.twin.runs.values() if run.is_leased]
        run = held[n % len(held)]
        more = {"role": "writer", "payload": "p", "messages": True, "begin": "", "deadline": ""}
        if not run.parent:
            self.start(run.tenant, run.thread, None, OnBusy.ROLLBACK, "", **more, priority=0, attempts=2)

    @precondition(lambda self: any(run.is_terminal for run in self.twin.runs.values()))
    @rule(n=nth)
    def retry(self, n: int) -> None:
        ended = [run.id for run in self.twin.runs.values() if run.is_terminal]
        self.say(calls.retry(self.keys, ended[n % len(ended)], 2))

    @precondition(lambda self: self.twin.routes)
    @rule(n=nth, action=st.sampled_from(("place", "place", "wait", "fail")), late=st.booleans(), role=roles)
    def route(self, n: int, action: str, late: bool, role: str) -> None:
        run = self.twin.runs[sorted(self.twin.routes)[n % len(self.twin.routes)]]
        hop = run.hops - late
        why = '"no pool"'
        why = ("1" if n % 2 else "") if action == "place" else why
        self.say(calls.route(self.keys, run.id, hop, action, role=role, agent=role, when="+2000000", why=why))

    @rule(limit=st.sampled_from((1, 2, 128)), expire=st.booleans())
    def sweep(self, limit: int, expire: bool) -> None:
        self.say(calls.sweep(self.keys, limit=limit, expire=expire))

    @rule(
        what=st.sampled_from(("beat", "lease", "cap", "weight")),
        role=roles,
        worker=workers,
        tenant=tenants,
        number=st.integers(0, 3),
        template=st.sampled_from(("", TEMPLATE)),
    )
    def operate(self, what: str, role: str, worker: str, tenant: str, number: int, template: str) -> None:
        if what == "beat":
            self.beat(role, worker, number, template)
        elif what == "lease":
            self.say(calls.partition_lease(self.keys, worker, number % 2 * 5 * S))
        elif what == "cap":
            self.cap(role, number or None)
        else:
            self.weigh(tenant, (0.5, 1.0, 2.0, 4.0)[number])

    def beat(self, role: str, worker: str, places: int, template: str) -> None:
        self.say(calls.pool_beat(self.keys, role, worker, places, template))

    def cap(self, role: str, cap: int | None) -> None:
        """An operator sets a cap of running turns, or takes it away."""
        if role not in self.twin.roles:
            return
        self.twin.roles[role].cap = cap
        key = self.keys.tickets(role)
        self.side.store.command(*(("HDEL", key, "cap") if cap is None else ("HSET", key, "cap", cap)))

    def weigh(self, tenant: str, weight: float) -> None:
        self.twin.weights[tenant] = weight
        self.side.store.command("HSET", self.keys.weights, tenant, weight)

    @rule(seconds=st.sampled_from((0.001, 0.02, 1.0, 3.0, 10.0, 20.0, 40.0, -2.0)))
    def pass_time(self, seconds: float) -> None:
        """Time goes on; after a failover the server's clock may step back."""
        self.now += round(seconds * S)


def test_scripts_and_twin_say_and_do_the_same(server: EmbeddedRedis) -> None:
    side = Side(server)
    with side.store:
        run_state_machine_as_test(lambda: BothWorlds(side), settings=profile())  # type: ignore[arg-type]
