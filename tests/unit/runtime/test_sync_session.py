"""The session that blocks: lifecycle, turns in their order, tools, policy, handoffs."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from techrevati.runtime import (
    AgentEvent,
    AgentEventName,
    AgentFailureClass,
    AgentRegistry,
    AgentSession,
    AgentStatus,
    AllowAllGuardrail,
    BudgetExceededError,
    Checkpoint,
    CircuitBreaker,
    CircuitOpenError,
    FailureScenario,
    GuardrailOutcome,
    GuardrailViolatedError,
    InMemorySaver,
    ManualClock,
    MaxIterationsExceededError,
    ModelPricing,
    PermissionDeniedError,
    PermissionEnforcer,
    PermissionMode,
    PermissionPolicy,
    PolicyAction,
    PolicyActionData,
    PolicyEngine,
    PolicyRule,
    QualityGate,
    QualityLevel,
    RateLimiter,
    RateLimitExceededError,
    RingBufferEventSink,
    RingBufferUsageSink,
    RolePermissionConfig,
    RoundRobinProviderRouter,
    SqliteSaver,
    TokenBucket,
    TurnTimeoutError,
    UsageLimitExceededError,
    UsageLimits,
    UsageSnapshot,
    register_pricing,
)
from techrevati.runtime.extras import SessionExtras
from techrevati.runtime.outputs import RegexOutput
from techrevati.runtime.policy_engine import CostExceeded, RetryExhausted, TimedOut

LOGGER = "techrevati.runtime.orchestrator"
MILLION = UsageSnapshot(input_tokens=1_000_000)


def plain(value: Any) -> Any:
    """Forget the type: hooks, replays and other tasks change what mypy thinks it knows."""
    return value


def throw(error: BaseException | type[BaseException]) -> Any:
    raise error


def names(events: list[AgentEvent]) -> list[str]:
    return [event.event.value for event in events]


# Lifecycle.


def test_a_clean_session_starts_and_completes() -> None:
    ring = RingBufferEventSink()
    factory = AgentSession("writer", "draft", project_id=7, event_sink=ring)
    with factory.session() as session:
        assert plain(session.worker.status) is AgentStatus.RUNNING
        assert session.worker.project_id == 7
        assert factory.registry.get(session.worker.worker_id) is session.worker
    assert plain(session.worker.status) is AgentStatus.COMPLETED
    assert names(session.events) == ["agent.started", "agent.completed"]
    assert ring.events == session.events
    assert [event.kind for event in session.worker.events] == ["initializing", "running", "completed"]
    assert all((event.role, event.phase, event.project_id) == ("writer", "draft", None) for event in ring.events)


def test_an_exception_fails_the_session_and_travels_on(caplog: pytest.LogCaptureFixture) -> None:
    factory = AgentSession("writer", "draft")
    error = RuntimeError("upstream said no")
    caplog.set_level(logging.INFO, LOGGER)
    with pytest.raises(RuntimeError) as caught, factory.session() as session:
        raise error
    assert caught.value is error
    assert plain(session.worker.status) is AgentStatus.FAILED
    assert session.worker.last_error is not None
    last = session.events[-1]
    assert (last.event, last.detail) == (AgentEventName.AGENT_FAILED, "upstream said no")
    assert last.failure_class is AgentFailureClass.DEPENDENCY_FAILED
    record = caplog.records[-1]
    assert record.message == "session_failed"
    assert vars(record)["failure_class"] == "dependency_failed"
    assert (vars(record)["role"], vars(record)["phase"], vars(record)["detail"]) == (
        "writer",
        "draft",
        "upstream said no",
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), AgentFailureClass.LLM_TIMEOUT),
        (RuntimeError("?"), AgentFailureClass.LLM_ERROR),
        (RuntimeError("tool failed"), AgentFailureClass.TOOL_ERROR),
        (RuntimeError("token limit"), AgentFailureClass.CONTEXT_OVERFLOW),
        (RuntimeError("dependency"), AgentFailureClass.DEPENDENCY_FAILED),
        (RuntimeError("corrupt"), AgentFailureClass.MEMORY_CORRUPTION),
        (ConnectionResetError(), AgentFailureClass.DEPENDENCY_FAILED),
        (BudgetExceededError(0.5, 0.503), AgentFailureClass.UNKNOWN),
        (RateLimitExceededError("tool errors", 429), AgentFailureClass.RATE_LIMIT),
        (CircuitOpenError("upstream-503"), AgentFailureClass.DEPENDENCY_FAILED),
        (TurnTimeoutError(1), AgentFailureClass.LLM_TIMEOUT),
        (MaxIterationsExceededError(429), AgentFailureClass.UNKNOWN),
        (UsageLimitExceededError("total_tokens", 503, 1), AgentFailureClass.UNKNOWN),
    ],
)
def test_the_failure_class_follows_the_error(error: Exception, expected: AgentFailureClass) -> None:
    with pytest.raises(type(error)), AgentSession("r", "p").session() as session:
        raise error
    assert session.events[-1].failure_class is expected


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_interrupts_cancel_the_worker(error: type[BaseException]) -> None:
    with pytest.raises(error), AgentSession("r", "p").session() as session:
        raise error
    assert plain(session.worker.status) is AgentStatus.CANCELLED
    assert session.events[-1].event is AgentEventName.AGENT_FAILED
    assert session.events[-1].failure_class is AgentFailureClass.UNKNOWN


def test_explicit_endings_are_not_repeated_on_leaving() -> None:
    factory = AgentSession("r", "p")
    with factory.session() as session:
        session.complete("done")
        session.complete("again")
    assert names(session.events) == ["agent.started", "agent.completed", "agent.completed"]
    with factory.session() as session:
        session.fail("no", AgentFailureClass.VALIDATION_ERROR)
    assert (session.worker.status, len(session.events)) == (AgentStatus.FAILED, 2)
    assert session.events[-1].failure_class is AgentFailureClass.VALIDATION_ERROR
    with factory.session() as session:
        session.cancel()
    assert (session.worker.status, session.events[-1].detail) == (AgentStatus.CANCELLED, "cancelled")
    with pytest.raises(RuntimeError), factory.session() as session:
        session.complete()
        raise RuntimeError("late")
    assert plain(session.worker.status) is AgentStatus.COMPLETED
    assert names(session.events)[-1] == "agent.failed"


def test_a_cleared_registry_does_not_hide_the_error() -> None:
    factory = AgentSession("r", "p")
    with pytest.raises(RuntimeError, match="mine"), factory.session() as session:
        factory.registry.clear()
        raise RuntimeError("mine")
    assert plain(session.worker.status) is AgentStatus.FAILED


def test_leaving_while_waiting_for_input_cancels() -> None:
    with AgentSession("r", "p").session() as session:
        session.registry.transition(session.worker.worker_id, AgentStatus.WAITING_FOR_INPUT)
    assert plain(session.worker.status) is AgentStatus.CANCELLED
    assert session.events[-1].detail == "session left while waiting for input"


def test_failure_texts_can_be_redacted() -> None:
    extras = SessionExtras(redact=lambda text: text.replace("alice", "***"))
    with pytest.raises(RuntimeError, match="alice"), AgentSession("r", "p").session(extras=extras) as session:
        raise RuntimeError("alice said no")
    assert session.events[-1].detail == "*** said no"
    assert session.worker.last_error is not None
    assert session.worker.last_error["message"] == "*** said no"


def test_sessions_of_one_factory_share_and_do_not_share() -> None:
    guard = AllowAllGuardrail()
    factory = AgentSession("r", "p", guardrails=[guard], provider_router=RoundRobinProviderRouter(("a",)))
    with factory.session() as one, factory.session() as two:
        one.guardrails.clear()
        one.run_turn(int, model="m")
        assert (two.guardrails, factory.guardrails) == ([guard], [guard])
        assert one.registry is two.registry
        assert one.provider_router is factory.provider_router
        assert (one._iteration_count, two._iteration_count) == (1, 0)
        assert (len(one.tracker.turns), len(two.tracker.turns)) == (1, 0)


def test_broken_sinks_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def emit(self, event: AgentEvent) -> None:
            raise OSError("disk")

        def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
            raise OSError("disk")

    factory = AgentSession("r", "p", event_sink=Broken(), usage_sink=Broken())
    with caplog.at_level(logging.ERROR, LOGGER), factory.session() as session:
        assert session.run_turn(lambda: 1, model="m")[0] == 1
    assert "event_sink.emit raised" in caplog.text
    assert "usage_sink.record raised" in caplog.text
    assert all(record.exc_info for record in caplog.records)
    assert len(session.events) == 2


# Turns.


def test_a_turn_returns_result_and_usage() -> None:
    ring = RingBufferUsageSink()
    register_pricing("m", ModelPricing(2, 0))
    with AgentSession("r", "p", usage_sink=ring).session() as session:
        assert session.run_turn(lambda: "x") == ("x", UsageSnapshot())
        assert session.run_turn(lambda: "x", "m", MILLION) == ("x", MILLION)
        estimated = session.run_turn(lambda: "abc", model="m", estimate_usage=lambda r: UsageSnapshot(len(r)))
        assert estimated == ("abc", UsageSnapshot(3))
        both = session.run_turn(int, usage=MILLION, estimate_usage=lambda _: UsageSnapshot(9))
        assert both[1] is MILLION
    assert ring.records == [("m", MILLION, 2.0), ("m", UsageSnapshot(3), pytest.approx(6e-6))]
    assert session.summary()["usage"]["turns"] == 2
    assert session._iteration_count == 4


@pytest.mark.parametrize(("cap", "allowed"), [(3, 3), (0, 0), (-1, 0)])
def test_the_cap_stops_the_next_turn_before_it_is_made(cap: int, allowed: int) -> None:
    calls = []
    with AgentSession("r", "p", max_iterations=cap).session() as session:
        for _ in range(allowed):
            session.run_turn(lambda: calls.append(1))
        with pytest.raises(MaxIterationsExceededError, match=f"^session reached max_iterations={cap}"):
            session.run_turn(lambda: calls.append(1))
    assert len(calls) == allowed
    assert "agent.recovery.attempted" not in names(session.events)


def test_a_failing_call_is_classified_and_raised_once(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise ConnectionRefusedError("nope")

    with caplog.at_level(logging.INFO, LOGGER), AgentSession("r", "p").session() as session:
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                session.run_turn(fail)
    details = [event.detail for event in session.events if event.event is AgentEventName.RECOVERY_ATTEMPTED]
    assert details == ["provider_failure: recovered"] * 2 + ["provider_failure: escalation_required"]
    assert session.recovery.attempt_count(FailureScenario.PROVIDER_FAILURE) == 2
    assert len(calls) == 3
    logged = [vars(record) for record in caplog.records if record.message == "recovery_attempted"]
    assert (logged[0]["scenario"], logged[0]["outcome"]) == ("provider_failure", "recovered")


def test_the_breaker_guards_turns() -> None:
    breaker = CircuitBreaker("llm", failure_threshold=1)

    def fail() -> None:
        raise RuntimeError("x")

    with AgentSession("r", "p", circuit_breaker=breaker).session() as session:
        with pytest.raises(RuntimeError):
            session.run_turn(fail)
        with pytest.raises(CircuitOpenError):
            session.run_turn(int)
        with pytest.raises(CircuitOpenError):
            session.run_turn(int, timeout=5)
    assert names(session.events).count("agent.recovery.attempted") == 1
    assert session._iteration_count == 3


def test_errors_outside_the_call_get_no_recovery() -> None:
    def estimate(_: Any) -> UsageSnapshot:
        raise ValueError("no idea")

    clock = ManualClock()
    limiter = RateLimiter({"rpm": TokenBucket("rpm", 1, 1, clock)})
    with AgentSession("r", "p", rate_limiter=limiter).session() as session:
        with pytest.raises(ValueError, match="no idea"):
            session.run_turn(int, estimate_usage=estimate)
        limiter.buckets["rpm"] = TokenBucket("tiny", 0.5, 1, clock)
        with pytest.raises(RateLimitExceededError):
            session.run_turn(int)
    assert session._iteration_count == 1
    assert names(session.events) == ["agent.started", "agent.completed"]


def test_the_limiter_is_paid_before_and_after() -> None:
    clock = ManualClock()
    rpm, tokens = TokenBucket("rpm", 10, 1, clock), TokenBucket("in", 2_000_000, 1, clock)
    limiter = RateLimiter({"rpm": rpm, "input_tpm": tokens})
    with AgentSession("r", "p", rate_limiter=limiter).session() as session:
        session.run_turn(int, usage=MILLION)
    assert (rpm.available, tokens.available) == (9, 1_000_000)


def test_budgets_warn_or_stop(caplog: pytest.LogCaptureFixture) -> None:
    register_pricing("m", ModelPricing(1, 0))
    with (
        caplog.at_level(logging.WARNING, LOGGER),
        AgentSession("r", "p", budget_usd=1.0).session() as session,
    ):
        session.run_turn(int, "m", MILLION)
        session.run_turn(int, "m", MILLION)
        assert plain(session.worker.status) is AgentStatus.RUNNING
    event = session.events[1]
    assert (event.event, event.failure_class) == (AgentEventName.AGENT_FAILED, AgentFailureClass.UNKNOWN)
    assert (event.detail, event.data) == ("budget exceeded: $2.00", {"budget_usd": 1.0})
    record = vars(next(record for record in caplog.records if record.message == "budget_exceeded"))
    assert (record["budget_usd"], record["current_cost_usd"], record["enforced"]) == (1.0, 2.0, False)
    factory = AgentSession("r", "p", budget_usd=0, enforce_budget=True)
    with pytest.raises(BudgetExceededError) as caught, factory.session() as strict:
        strict.run_turn(int, "free", MILLION)
        strict.run_turn(int, "m", MILLION)
    assert (caught.value.budget_usd, caught.value.current_cost_usd) == (0, 1.0)
    assert names(strict.events) == ["agent.started", "agent.failed", "agent.failed"]


def test_limits_stop_after_the_turn_is_counted() -> None:
    with AgentSession("r", "p", usage_limits=UsageLimits(tool_calls_max=0)).session() as session:
        with pytest.raises(UsageLimitExceededError):
            session.run_turn(int, "m", UsageSnapshot(tool_calls=1))
        assert session.tracker.total_tool_calls == 1
    assert plain(session.worker.status) is AgentStatus.COMPLETED


# Tools, policy, gates, handoffs.


class OnlyShort:
    name = "only_short"

    def check_pre(self, *, role: str, tool: str) -> GuardrailOutcome:
        return GuardrailOutcome(tool != "forbidden")

    def check_post(self, value: Any, *, role: str, tool: str) -> GuardrailOutcome:
        return GuardrailOutcome(len(str(value)) < 5, "too long")


def test_tools_pass_permissions_and_guardrails() -> None:
    roles = {"dev": RolePermissionConfig("dev", PermissionMode.READ_ONLY, denied_tools=["rm"])}
    factory = AgentSession(
        "dev", "p", permissions=PermissionEnforcer(PermissionPolicy(roles)), guardrails=[OnlyShort()]
    )
    calls: list[int] = []
    with factory.session() as session:
        assert session.run_tool("read", lambda: "ok") == "ok"
        with pytest.raises(PermissionDeniedError, match="explicitly denied") as denied:
            session.run_tool("rm", lambda: calls.append(1))
        with pytest.raises(GuardrailViolatedError):
            session.run_tool("forbidden", lambda: calls.append(1))
        with pytest.raises(GuardrailViolatedError, match="too long"):
            session.run_tool("read", lambda: "very long")
        assert session._iteration_count == 0
    assert not denied.value.outcome.allowed
    assert calls == []
    assert names(session.events) == ["agent.started", "agent.completed"]


def test_without_an_enforcer_everything_is_allowed() -> None:
    with AgentSession("r", "p").session() as session:
        outcome = session.authorize("anything")
    assert (outcome.allowed, outcome.reason) == (True, "no enforcer configured")


def test_the_policy_sees_the_session() -> None:
    register_pricing("m", ModelPricing(1, 0))
    clock = ManualClock()

    def rule(condition: Any, action: PolicyAction) -> PolicyRule:
        return PolicyRule(action.value, condition, [PolicyActionData(action)])

    engine = PolicyEngine(
        [
            rule(CostExceeded(0.5), PolicyAction.NOTIFY),
            rule(TimedOut(10), PolicyAction.ESCALATE),
            rule(RetryExhausted("tool_execution_error"), PolicyAction.ABORT_PHASE),
        ]
    )
    with AgentSession("r", "p", policy_engine=engine).session(extras=SessionExtras(clock=clock)) as session:
        assert session.evaluate_policy() == []
        session.run_turn(int, "m", MILLION)
        clock.advance(11)
        assert [data.action for data in session.evaluate_policy()] == [
            PolicyAction.NOTIFY,
            PolicyAction.ESCALATE,
        ]
        assert [data.action for data in session.evaluate_policy(elapsed_seconds=0.0)] == [PolicyAction.NOTIFY]

        def fail() -> None:
            raise RuntimeError("tool failed")

        for _ in range(2):
            with pytest.raises(RuntimeError):
                session.run_turn(fail)
        assert PolicyAction.ABORT_PHASE in [data.action for data in session.evaluate_policy()]
        context = session.phase_context()
        assert (context.phase, context.total_cost_usd, context.elapsed_seconds) == ("p", 1.0, 11)
    with AgentSession("r", "p").session() as without:
        assert without.evaluate_policy(phase_completed=True) == []


def test_gates_emit_what_they_decide(caplog: pytest.LogCaptureFixture) -> None:
    factory = AgentSession("r", "p", quality_gate=QualityGate(QualityLevel.STRICT))
    with caplog.at_level(logging.INFO, LOGGER), factory.session() as session:
        passed = session.evaluate_gate(QualityLevel.STRICT)
        failed = session.evaluate_gate(None)
    assert passed is not None
    assert failed is not None
    assert (passed.satisfied, failed.satisfied) == (True, False)
    assert [(e.event.value, e.detail, e.role) for e in session.events[1:3]] == [
        ("phase.gate_passed", "observed=STRICT", None),
        ("phase.gate_failed", "observed=NONE", None),
    ]
    assert [vars(r)["observed"] for r in caplog.records if r.message == "quality_gate_failed"] == ["NONE"]
    with AgentSession("r", "p").session() as plain:
        assert plain.evaluate_gate(QualityLevel.STRICT) is None


def test_a_handoff_completes_this_worker_and_names_the_next(caplog: pytest.LogCaptureFixture) -> None:
    factory = AgentSession("writer", "draft", project_id=3)
    context = {"draft": "x"}
    with caplog.at_level(logging.INFO, LOGGER), factory.session() as session:
        handoff = session.handoff_to("editor", "review", context)
        assert session.handoff_to("nobody", "again").context == {}
    context["draft"] = "y"
    target = factory.registry.get(handoff.target_worker_id)
    assert target is not None
    assert (target.role, target.phase, target.project_id) == ("editor", "draft", 3)
    assert target.status is AgentStatus.INITIALIZING
    assert target.events[-1].detail == "handoff from writer: review"
    assert session.worker.events[-1].detail == "handoff to editor"
    assert handoff.context == {"draft": "x"}
    event = session.events[1]
    assert event.detail == "handoff → editor: review"
    assert event.data == {"handoff": handoff.to_dict()}
    assert names(session.events) == ["agent.started", "agent.completed", "agent.completed"]
    logged = vars(caplog.records[0])
    assert (logged["msg"], logged["target_role"], logged["reason"]) == ("handoff_issued", "editor", "review")


def test_the_summary_is_json() -> None:
    with AgentSession("r", "p").session() as session:
        session.run_turn(int, "m", MILLION)
        with pytest.raises(RuntimeError):
            session.run_turn(partial(throw, RuntimeError("x")))
    summary = json.loads(json.dumps(session.summary()))
    assert set(summary) == {"worker", "usage", "per_model_cost", "recovery_events", "agent_events"}
    assert len(summary["agent_events"]) == 3


# Checkpoints and replay.


class Plain:
    """A saver with the four methods and no more."""

    def __init__(self) -> None:
        self.inner = InMemorySaver()
        self.listed = 0

    def get(self, thread_id: str, checkpoint_id: str | None = None) -> Checkpoint | None:
        return self.inner.get(thread_id, checkpoint_id)

    def put(
        self,
        thread_id: str,
        state: Mapping[str, Any],
        *,
        parent_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        return self.inner.put(thread_id, state, parent_id=parent_id, metadata=metadata)

    def list(self, thread_id: str, *, before: str | None = None, limit: int = 10) -> list[Checkpoint]:
        self.listed += 1
        return self.inner.list(thread_id, before=before, limit=limit)

    def delete(self, thread_id: str) -> None:
        self.inner.delete(thread_id)


class DeafToBefore(Plain):
    """A saver that ignores `before`; asking it for more must end all the same."""

    def list(self, thread_id: str, *, before: str | None = None, limit: int = 10) -> list[Checkpoint]:
        return self.inner.list(thread_id, limit=limit)


@pytest.fixture(params=["plain", "memory", "sqlite"])
def saver(request: pytest.FixtureRequest) -> Any:
    if request.param == "sqlite":
        with SqliteSaver(":memory:") as sqlite:
            yield sqlite
    else:
        yield Plain() if request.param == "plain" else InMemorySaver()


@pytest.mark.parametrize("base", [InMemorySaver, SqliteSaver])
def test_a_subclass_sees_every_write(base: Any) -> None:
    class Spy(base):  # type: ignore[misc]  # a class that is chosen by the test
        written = 0

        def put(self, *args: Any, **kwargs: Any) -> Checkpoint:
            self.written += 1
            return plain(super().put(*args, **kwargs))  # type: ignore[no-any-return]

    saver = Spy() if base is InMemorySaver else Spy(":memory:")
    with AgentSession("r", "p", saver=saver).session(thread_id="t") as session:
        session.run_turn(int)
        session.run_turn(int, idempotency_key="k")
    assert saver.written == 2
    if base is SqliteSaver:
        saver.close()


def test_every_turn_of_a_thread_is_recorded(saver: Any) -> None:
    with AgentSession("r", "p", saver=saver).session(thread_id="t") as session:
        session.run_turn(lambda: (1, {2: 3}), "m", MILLION)
        session.run_turn(lambda: "keyed", idempotency_key="k")
    keyed, plain = saver.list("t")
    assert plain.state == {"result": [1, {"2": 3}], "usage": MILLION.to_dict()}
    assert (plain.metadata, plain.parent_id) == ({"status": "completed", "model": "m"}, None)
    assert keyed.metadata == {"status": "completed", "model": "", "idempotency_key": "k"}


def test_a_key_is_replayed_without_side_effects(saver: Any) -> None:
    usages = RingBufferUsageSink()
    breaker = CircuitBreaker("b", failure_threshold=1)
    factory = AgentSession("r", "p", saver=saver, usage_sink=usages, circuit_breaker=breaker, max_iterations=3)
    with factory.session(thread_id="t") as session:
        live = session.run_turn(lambda: (1, None), "m", MILLION, idempotency_key="k")
    assert live == ((1, None), MILLION)
    breaker.record_failure()
    with factory.session(thread_id="t") as again:
        replayed = again.run_turn(lambda: 1 / 0, "m", UsageSnapshot(5), timeout=1, idempotency_key="k")
        assert plain(replayed) == ([1, None], MILLION)
        assert (again._iteration_count, again.tracker.turns) == (1, [])
        again.run_turn(int, idempotency_key="k")
        again.run_turn(int, idempotency_key="k")
        with pytest.raises(MaxIterationsExceededError):
            again.run_turn(int, idempotency_key="k")
    assert names(again.events) == ["agent.started", "agent.completed"]
    assert len(saver.list("t")) == len(usages.records) == 1


def test_none_is_a_result_and_keys_belong_to_their_thread(saver: Any) -> None:
    factory = AgentSession("r", "p", saver=saver)
    for _ in range(2):
        with factory.session(thread_id="t") as session:
            assert session.run_turn(lambda: None, idempotency_key="k")[0] is None
    with factory.session(thread_id="u") as other:
        assert other.run_turn(lambda: "mine", idempotency_key="k")[0] == "mine"
    assert len(saver.list("t")) == 1


def test_keys_are_found_beyond_a_hundred_checkpoints(saver: Any) -> None:
    factory = AgentSession("r", "p", saver=saver, max_iterations=1000)
    with factory.session(thread_id="t") as session:
        session.run_turn(lambda: "first", idempotency_key="k")
        for n in range(250):
            session.run_turn(lambda n=n: n)  # type: ignore[misc]
        assert session.run_turn(lambda: "second", idempotency_key="k")[0] == "first"
    with factory.session(thread_id="t") as session:
        assert session.run_turn(lambda: "third", idempotency_key="k")[0] == "first"


def test_a_plain_saver_is_read_once_per_session() -> None:
    saver = Plain()
    with AgentSession("r", "p", saver=saver, max_iterations=1000).session(thread_id="t") as session:
        for n in range(300):
            session.run_turn(lambda n=n: n, idempotency_key=f"k{n}")  # type: ignore[misc]
        assert saver.listed == 300
        assert plain(session.run_turn(lambda: "again", idempotency_key="k3"))[0] == 3
        saver.delete("t")
        assert session.run_turn(lambda: "gone", idempotency_key="k3")[0] == "gone"


def test_a_saver_that_ignores_before_is_survived() -> None:
    saver = DeafToBefore()
    with AgentSession("r", "p", saver=saver, max_iterations=1000).session(thread_id="t") as session:
        for n in range(150):
            session.run_turn(lambda n=n: n)  # type: ignore[misc]
        assert session.run_turn(lambda: "new", idempotency_key="k")[0] == "new"


@pytest.mark.parametrize(("thread", "key"), [(None, "k"), ("", "k")])
def test_without_a_thread_nothing_is_recorded(thread: str | None, key: str) -> None:
    saver = InMemorySaver()
    with AgentSession("r", "p", saver=saver).session(thread_id=thread) as session:
        assert [session.run_turn(lambda n=n: n, idempotency_key=key)[0] for n in range(2)] == [0, 1]  # type: ignore[misc]
        assert session.step("s", lambda: 5) == 5
    with AgentSession("r", "p").session(thread_id="t") as session:
        assert session.run_turn(lambda: 1, idempotency_key="k")[0] == 1
    assert saver._threads == {}


def test_an_empty_key_is_no_key() -> None:
    saver = InMemorySaver()
    with AgentSession("r", "p", saver=saver).session(thread_id="t") as session:
        assert [session.run_turn(lambda n=n: n, idempotency_key="")[0] for n in range(2)] == [0, 1]  # type: ignore[misc]
    assert "idempotency_key" not in saver.list("t")[0].metadata


def test_what_is_not_json_is_returned_but_not_recorded(saver: Any, caplog: pytest.LogCaptureFixture) -> None:
    result = object()
    ring: list[Any] = []
    ring.append(ring)
    caplog.set_level(logging.WARNING, LOGGER)
    with AgentSession("r", "p", saver=saver).session(thread_id="t") as session:
        assert session.run_turn(lambda: result, idempotency_key="k")[0] is result
        assert session.run_turn(lambda: ring)[0] is ring
        assert session.run_turn(lambda: "fine", idempotency_key="k")[0] == "fine"
    assert caplog.text.count("not JSON-serializable") == 2
    assert len(saver.list("t")) == 1


def test_replay_tolerates_records_without_usage() -> None:
    saver = InMemorySaver()
    saver.put("t", {"result": 1}, metadata={"idempotency_key": "k"})
    with AgentSession("r", "p", saver=saver).session(thread_id="t") as session:
        assert session.run_turn(int, idempotency_key="k") == (1, UsageSnapshot())


@pytest.mark.parametrize("stop", ["budget", "limits", "limiter"])
def test_a_paid_result_is_recorded_before_anything_stops_the_turn(saver: Any, stop: str) -> None:
    register_pricing("m", ModelPricing(1, 0))
    clock = ManualClock()
    factory = AgentSession("r", "p", saver=saver)
    errors: dict[str, type[Exception]] = {
        "budget": BudgetExceededError,
        "limits": UsageLimitExceededError,
        "limiter": RateLimitExceededError,
    }
    if stop == "budget":
        factory.budget_usd, factory.enforce_budget = 0.5, True
    elif stop == "limits":
        factory.usage_limits = UsageLimits(request_tokens_max=1)
    else:

        class Refusing(RateLimiter):
            def acquire_usage(self, **kwargs: Any) -> None:
                raise RateLimitExceededError("in", 1)

        factory.rate_limiter = Refusing({"in": TokenBucket("in", 1, 1, clock)})
    calls: list[int] = []
    with factory.session(thread_id="t") as session:
        with pytest.raises(errors[stop]):
            session.run_turn(lambda: calls.append(1), "m", MILLION, idempotency_key="k")
        assert len(session.tracker.turns) == (0 if stop == "limiter" else 1)
    with factory.session(thread_id="t") as again:
        again.run_turn(lambda: calls.append(1), "m", MILLION, idempotency_key="k")
    assert calls == [1]


def test_a_result_of_unknown_cost_is_recorded_all_the_same(saver: Any) -> None:
    def estimate(_: Any) -> UsageSnapshot:
        raise ValueError("no idea")

    with AgentSession("r", "p", saver=saver).session(thread_id="t") as session:
        with pytest.raises(ValueError, match="no idea"):
            session.run_turn(lambda: "paid", estimate_usage=estimate, idempotency_key="k")
        assert session.run_turn(lambda: "again", idempotency_key="k") == ("paid", UsageSnapshot())


def test_a_result_nobody_checked_is_not_recorded() -> None:
    def estimate(_: Any) -> UsageSnapshot:
        raise ValueError("no idea")

    saver = InMemorySaver()
    extras = SessionExtras(output=RegexOutput("yes|no"))
    with AgentSession("r", "p", saver=saver).session(thread_id="t", extras=extras) as session:
        with pytest.raises(ValueError, match="no idea"):
            session.run_turn(lambda: "maybe", estimate_usage=estimate, idempotency_key="k")
        assert session.run_turn(lambda: "yes", idempotency_key="k")[0] == "yes"
    assert len(saver.list("t")) == 1


def test_a_release_that_fails_does_not_hide_the_error(caplog: pytest.LogCaptureFixture) -> None:
    class Down(InMemorySaver):
        def release(self, *args: Any, **kwargs: Any) -> None:
            raise ConnectionError("store is down")

    scope = AgentSession("r", "p", saver=Down()).session(thread_id="t")
    with pytest.raises(ValueError, match="mine"), scope as session:
        session.run_turn(partial(throw, ValueError("mine")), idempotency_key="k")
    assert "saver.release raised; key 'k' is held" in caplog.text
    assert session.events[1].detail == "llm_error: recovered"


def test_a_failing_saver_speaks_up_after_the_accounts() -> None:
    class Full(Plain):
        def put(self, *args: Any, **kwargs: Any) -> Checkpoint:
            raise OSError("disk full")

    factory = AgentSession("r", "p", saver=Full())
    with factory.session(thread_id="t") as session:
        with pytest.raises(OSError, match="disk full"):
            session.run_turn(int, "m", MILLION)
        assert len(session.tracker.turns) == 1
        with pytest.raises(OSError, match="disk full"):
            session.step("s", int)
    assert "agent.recovery.attempted" not in names(session.events)


def test_a_keyed_saver_that_fails_gets_its_key_back() -> None:
    class Full(InMemorySaver):
        def put_claimed(self, *args: Any, **kwargs: Any) -> Checkpoint:
            raise OSError("disk full")

    saver = Full()
    with AgentSession("r", "p", saver=saver).session(thread_id="t") as session:
        with pytest.raises(OSError, match="disk full"):
            session.run_turn(int, idempotency_key="k")
        with pytest.raises(OSError, match="disk full"):
            session.step("s", int)
    assert saver._grants == {}


def test_a_lost_claim_of_a_step_returns_what_was_recorded() -> None:
    saver = InMemorySaver()
    clock = ManualClock()
    saver._clock = clock
    factory = AgentSession("r", "p", saver=saver)

    def overtaken(recorded: bool) -> str:
        clock.advance(1000)
        if recorded:
            with factory.session(thread_id="t") as other:
                other.step("s", lambda: "theirs")
        else:
            saver.claim("t", "step:u", owner="somebody", ttl=1000)
        return "mine"

    with factory.session(thread_id="t") as session:
        assert session.step("s", partial(overtaken, True)) == "theirs"
        assert session.step("u", partial(overtaken, False)) == "mine"


def test_a_failed_turn_gives_its_key_back() -> None:
    saver = InMemorySaver()
    factory = AgentSession("r", "p", saver=saver)
    with factory.session(thread_id="t") as session:
        for error in (RuntimeError, KeyboardInterrupt):
            with pytest.raises(error):
                session.run_turn(partial(throw, error), idempotency_key="k")
        with factory.session(thread_id="t") as other:
            assert other.run_turn(lambda: 1, idempotency_key="k")[0] == 1


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_sessions_at_the_same_time_make_a_keyed_turn_once(kind: str) -> None:
    stack = ExitStack()
    saver = InMemorySaver() if kind == "memory" else stack.enter_context(SqliteSaver(":memory:"))
    factory = AgentSession("r", "p", saver=saver)
    started, release = threading.Event(), threading.Event()
    calls: list[int] = []

    def slow() -> str:
        calls.append(1)
        started.set()
        assert release.wait(10)
        return "once"

    def run() -> str:
        with factory.session(thread_id="t") as session:
            return session.run_turn(slow, idempotency_key="k")[0]

    with stack, ThreadPoolExecutor(4) as pool:
        first = pool.submit(run)
        assert started.wait(10)
        others = [pool.submit(run) for _ in range(3)]
        release.set()
        assert [future.result(10) for future in [first, *others]] == ["once"] * 4
    assert calls == [1]


def test_a_result_that_comes_after_its_claim_was_lost_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    saver = InMemorySaver()
    clock = ManualClock()
    saver._clock = clock
    factory = AgentSession("r", "p", saver=saver)

    def overtaken() -> str:
        clock.advance(1000)
        with factory.session(thread_id="t") as other:
            assert other.run_turn(lambda: "theirs", idempotency_key="k")[0] == "theirs"
        return "mine"

    with caplog.at_level(logging.WARNING, LOGGER), factory.session(thread_id="t") as session:
        assert session.run_turn(overtaken, idempotency_key="k")[0] == "theirs"
    assert "claim_lost" in caplog.text
    assert len(saver.list("t")) == 1


def test_a_lost_claim_without_another_result_returns_the_live_one() -> None:
    saver = InMemorySaver()
    clock = ManualClock()
    saver._clock = clock

    def overtaken() -> str:
        clock.advance(1000)
        saver.claim("t", "k", owner="somebody", ttl=1000)
        saver.claim("t", "step:k", owner="somebody", ttl=1000)
        return "mine"

    with AgentSession("r", "p", saver=saver).session(thread_id="t") as session:
        assert session.run_turn(overtaken, idempotency_key="k")[0] == "mine"
        assert session.step("k2", lambda: 3) == 3


def test_steps_are_done_once_per_thread(saver: Any) -> None:
    factory = AgentSession("r", "p", saver=saver)
    calls: list[str] = []

    def charge() -> dict[str, int]:
        calls.append("charge")
        return {"charged": 5}

    with factory.session(thread_id="t") as session:
        with pytest.raises(RuntimeError):
            session.step("charge", partial(throw, RuntimeError("network")))
        assert session.step("charge", charge) == {"charged": 5}
        assert session._iteration_count == 0
    with factory.session(thread_id="t") as again:
        assert again.step("charge", charge) == {"charged": 5}
        assert again.run_turn(lambda: "a turn", idempotency_key="charge")[0] == "a turn"
    assert calls == ["charge"]
    assert saver.list("t")[-1].metadata["status"] == "step"


# Export and resume.


def test_a_session_goes_on_elsewhere() -> None:
    register_pricing("m", ModelPricing(1, 0))
    clock = ManualClock()
    factory = AgentSession("r", "p", max_iterations=3, budget_usd=2.5, enforce_budget=True)
    with factory.session(extras=SessionExtras(clock=clock)) as session:
        session.run_turn(int, "m", MILLION)
        session.run_turn(int, "m", MILLION)
        with pytest.raises(RuntimeError):
            session.run_turn(partial(throw, RuntimeError("tool failed")))
        clock.advance(30)
        state = json.loads(json.dumps(session.export_state()))
    later = ManualClock(start=5.0)
    with factory.session(state=state, extras=SessionExtras(clock=later)) as again:
        assert (again._iteration_count, again.tracker.total_cost()) == (3, 2.0)
        assert again.summary()["usage"]["turns"] == 2
        assert again.recovery.attempt_count(FailureScenario.TOOL_EXECUTION_ERROR) == 1
        later.advance(1)
        assert again.export_state()["elapsed_seconds"] == pytest.approx(31)
        with pytest.raises(MaxIterationsExceededError):
            again.run_turn(int)
        again.max_iterations = 10
        with pytest.raises(BudgetExceededError):
            again.run_turn(int, "m", MILLION)


def test_exported_state_does_not_grow_with_turns() -> None:
    with AgentSession("r", "p", max_iterations=10_000).session() as session:
        session.run_turn(int, "m", UsageSnapshot(1, cache_ttl="5m"))
        size = len(json.dumps(session.export_state()))
        for _ in range(1000):
            session.run_turn(int, "m", UsageSnapshot(1, cache_ttl="5m"))
        assert len(json.dumps(session.export_state())) < size + 50


def test_state_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="session state has version 99"):
        AgentSession("r", "p").session(state={"version": 99})


# Deadlines.


def test_the_deadline_is_prompt_and_the_breaker_learns_later() -> None:
    release, finished = threading.Event(), threading.Event()

    class Learning(CircuitBreaker):
        def record_success(self) -> None:
            super().record_success()
            finished.set()

    breaker = Learning("b", failure_threshold=1)
    with AgentSession("r", "p", circuit_breaker=breaker).session() as session:
        with pytest.raises(TurnTimeoutError) as caught:
            session.run_turn(lambda: release.wait(30), timeout=0.01)
        assert caught.value.timeout_seconds == 0.01
        assert breaker._failure_count == 0
        assert not finished.is_set()
        release.set()
        assert finished.wait(10)
        assert session.run_turn(lambda: 5, timeout=5)[0] == 5
    assert "agent.recovery.attempted" not in names(session.events)


def test_a_call_in_time_keeps_its_result_error_and_context() -> None:
    with AgentSession("r", "p").session() as session:
        assert [session.run_turn(lambda n=n: n, timeout=30)[0] for n in range(20)] == list(range(20))  # type: ignore[misc]
        with pytest.raises(TimeoutError, match="my own"):
            session.run_turn(partial(throw, TimeoutError("my own")), timeout=30)
        with pytest.raises(SystemExit):
            session.run_turn(partial(throw, SystemExit), timeout=30)
    assert session.events[1].detail == "llm_timeout: recovered"


def test_threads_share_a_registry_and_a_factory() -> None:
    registry = AgentRegistry()
    sink, usages = RingBufferEventSink(5000), RingBufferUsageSink(5000)
    factory = AgentSession(
        "r", "p", registry=registry, event_sink=sink, usage_sink=usages, saver=InMemorySaver(),
        circuit_breaker=CircuitBreaker("b"),
        rate_limiter=RateLimiter({"rpm": TokenBucket("rpm", 1e9, 1e9)}),
    )  # fmt: skip
    barrier = threading.Barrier(6)

    def work(n: int) -> int:
        barrier.wait()
        done = 0
        for round_ in range(5):
            with factory.session(thread_id=f"t{n}") as session:
                for turn in range(5):
                    key = f"{round_}-{turn}"
                    done += session.run_turn(lambda: 1, "m", MILLION, idempotency_key=key)[0]
        return done

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 150
    assert registry.list_active() == []
    assert (len(sink.events), len(usages.records)) == (60, 150)
