"""The hook chain around model, tool and handoff."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from techrevati.runtime import (
    AgentSession,
    Handoff,
    OrchestrationSession,
    PermissionDeniedError,
    PermissionEnforcer,
    PermissionMode,
    PermissionPolicy,
    RolePermissionConfig,
    TurnTimeoutError,
    UsageSnapshot,
)
from techrevati.runtime.extras import SessionExtras
from techrevati.runtime.hooks import HandoffCall, Hook, ModelCall, ToolCall


def plain(value: Any) -> Any:
    """Forget the type: hooks, replays and other tasks change what mypy thinks it knows."""
    return value


class Tag(Hook):
    """Wraps whatever passes in its own name."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def before_model(self, call: ModelCall) -> ModelCall:
        self.log.append(f"{self.name} in")
        return replace(call, model=f"{call.model}+{self.name}")

    def after_model(self, call: ModelCall, result: Any) -> Any:
        self.log.append(f"{self.name} out")
        return f"{self.name}({result})"

    def before_tool(self, call: ToolCall) -> ToolCall:
        return replace(call, tool=f"{call.tool}.{self.name}")

    def after_tool(self, call: ToolCall, result: Any) -> Any:
        return [self.name, result]

    def before_handoff(self, call: HandoffCall) -> HandoffCall:
        return replace(call, target_role=f"{call.target_role}-{self.name}", context={**call.context, self.name: 1})

    def after_handoff(self, handoff: Handoff) -> None:
        self.log.append(f"{self.name} saw {handoff.target_role}")


class Slow(Tag):
    """The same, as coroutines."""

    async def before_model(self, call: ModelCall) -> ModelCall:  # type: ignore[override]
        return super().before_model(call)

    async def after_model(self, call: ModelCall, result: Any) -> Any:
        return super().after_model(call, result)

    async def before_tool(self, call: ToolCall) -> ToolCall:  # type: ignore[override]
        return super().before_tool(call)

    async def after_tool(self, call: ToolCall, result: Any) -> Any:
        return super().after_tool(call, result)


def test_the_first_hook_is_outermost() -> None:
    log: list[str] = []
    extras = SessionExtras(hooks=(Tag("a", log), Tag("b", log)))
    with AgentSession("r", "p").session(extras=extras) as session:
        used = session.run_turn(lambda: "x", model="m", estimate_usage=lambda r: UsageSnapshot(len(r)))
        assert used == ("a(b(x))", UsageSnapshot(1))
        assert session.tracker.turns == [("m+a+b", UsageSnapshot(1))]
        assert plain(session.run_tool("t", lambda: "x")) == ["a", ["b", "x"]]
        handoff = session.handoff_to("editor", "done", {"k": 1})
    assert log == ["a in", "b in", "b out", "a out", "b saw editor-a-b", "a saw editor-a-b"]
    assert (handoff.target_role, handoff.context) == ("editor-a-b", {"k": 1, "a": 1, "b": 1})


async def test_async_sessions_await_hooks_that_need_it() -> None:
    log: list[str] = []
    extras = SessionExtras(hooks=(Slow("a", log), Tag("b", log)))
    async with AgentSession("r", "p").asession(extras=extras) as session:
        assert (await session.arun_turn(lambda: asyncio.sleep(0, "x"), "m"))[0] == "a(b(x))"
        assert plain(await session.arun_tool("t", lambda: asyncio.sleep(0, "x"))) == ["a", ["b", "x"]]


@pytest.mark.parametrize("method", ["before_model", "after_model", "before_tool", "after_tool"])
def test_sync_sessions_refuse_async_hooks_by_name(method: str) -> None:
    class One(Hook):
        pass

    async def late(*_: Any) -> Any:
        return None

    setattr(One, method, late)
    scope = AgentSession("r", "p").session(extras=SessionExtras(hooks=(One(),)))
    with pytest.raises(TypeError, match=rf"hook One\.{method} is asynchronous"), scope as session:
        if "model" in method:
            session.run_turn(int)
        else:
            session.run_tool("t", int)


def test_other_awaitables_are_refused_too() -> None:
    class Ready:
        def __await__(self) -> Any:
            yield from ()

    class Odd(Hook):
        def before_model(self, call: ModelCall) -> Any:
            return Ready()

    scope = AgentSession("r", "p").session(extras=SessionExtras(hooks=(Odd(),)))
    with pytest.raises(TypeError, match="asynchronous"), scope as session:
        session.run_turn(int)


def test_a_hook_may_answer_in_the_models_place_or_limit_its_time() -> None:
    class Cached(Hook):
        def before_model(self, call: ModelCall) -> ModelCall:
            return replace(call, call=lambda: "cached") if call.model == "m" else replace(call, timeout=0.001)

    release = threading.Event()
    with AgentSession("r", "p").session(extras=SessionExtras(hooks=(Cached(),))) as session:
        assert plain(session.run_turn(lambda: 1 / 0, model="m"))[0] == "cached"
        with pytest.raises(TurnTimeoutError):
            session.run_turn(lambda: release.wait(30))
        release.set()


def test_what_a_hook_raises_stops_the_turn_without_recovery() -> None:
    class Refuse(Hook):
        def __init__(self, late: bool) -> None:
            self.late = late

        def before_model(self, call: ModelCall) -> ModelCall:
            if not self.late:
                raise PermissionError("not today")
            return call

        def after_model(self, call: ModelCall, result: Any) -> Any:
            raise PermissionError("not that")

    calls: list[int] = []

    def refused(late: bool) -> OrchestrationSession:
        with AgentSession("r", "p").session(extras=SessionExtras(hooks=(Refuse(late),))) as session:
            error = pytest.raises(PermissionError)
            with error:
                session.run_turn(lambda: calls.append(1), "m", UsageSnapshot(5))
        return session

    early, late = refused(False), refused(True)
    assert calls == [1]
    assert early.tracker.total_input_tokens == 0
    assert late.tracker.total_input_tokens == 5  # refused, but paid for
    assert len(early.events) == len(late.events) == 2


async def test_async_refusals_are_paid_for_too() -> None:
    class Refuse(Hook):
        async def after_model(self, call: ModelCall, result: Any) -> Any:
            raise PermissionError("not that")

    async with AgentSession("r", "p").asession(extras=SessionExtras(hooks=(Refuse(),))) as session:
        with pytest.raises(PermissionError):
            await session.arun_turn(lambda: asyncio.sleep(0), "m", UsageSnapshot(5))
        assert session.tracker.total_input_tokens == 5


def test_permissions_judge_what_comes_out_of_the_hooks() -> None:
    class Redirect(Hook):
        def before_tool(self, call: ToolCall) -> ToolCall:
            return replace(call, tool="rm")

    roles = {"r": RolePermissionConfig("r", PermissionMode.READ_ONLY, denied_tools=["rm"])}
    factory = AgentSession("r", "p", permissions=PermissionEnforcer(PermissionPolicy(roles)))
    scope = factory.session(extras=SessionExtras(hooks=(Redirect(),)))
    with pytest.raises(PermissionDeniedError), scope as session:
        session.run_tool("read", int)


async def test_handoffs_refuse_hooks_that_wait() -> None:
    class Late(Hook):
        async def before_handoff(self, call: HandoffCall) -> HandoffCall:  # type: ignore[override]
            return call

    async with AgentSession("r", "p").asession(extras=SessionExtras(hooks=(Late(),))) as session:
        with pytest.raises(TypeError, match=r"Late\.before_handoff is asynchronous: handoffs never wait"):
            session.handoff_to("x", "y")


async def test_the_plain_hook_changes_nothing() -> None:
    async with AgentSession("r", "p").asession(extras=SessionExtras(hooks=(Hook(),))) as session:
        assert (await session.arun_turn(lambda: asyncio.sleep(0, 1)))[0] == 1
        assert await session.arun_tool("t", lambda: asyncio.sleep(0, 1)) == 1
        assert session.handoff_to("x", "y").target_role == "x"
