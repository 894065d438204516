"""Tell a sink what every inference and every tool call was, and what a run came to.

    before_inference … after_inference ──▶ InferenceSpan ─┐
    before_tool … after_tool ──▶ ToolSpan ────────────────┼──▶ sink
    totals in the run's state ──run_end──▶ RunMetrics ────┘

It decides nothing: its only actions add to the totals, and a sink that fails is logged and left alone.  The
totals stand in the state because the steps of one run may be worked on by different processes.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import msgspec

from techrevati.agent.actions import (
    AfterInferenceAction,
    AfterToolExecuteAction,
    BeforeInferenceAction,
    BeforeToolExecuteAction,
    Effect,
    LifecycleAction,
)
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.behaviours.spans import InferenceSpan, RunMetrics, ToolSpan, Totals
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.model import StreamResult, TokenUsage
from techrevati.agent.state.document import find
from techrevati.agent.state.notation import Path
from techrevati.agent.state.paths import RUN
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.spec import AnyStateAction, StateSpec
from techrevati.agent.tools import ToolStatus

__all__ = ["InferenceSpan", "Observability", "ObservabilitySink", "RunMetrics", "RunTotals", "ToolSpan", "Totals"]

log = logging.getLogger(__name__)
_MOST_OPEN = 4096


class CountInference(msgspec.Struct, frozen=True, tag="inference"):
    model: str
    failed: bool
    usage: TokenUsage
    duration: float


class CountTool(msgspec.Struct, frozen=True, tag="tool"):
    name: str
    failed: bool
    duration: float


class RunTotals(StateSpec):
    PATH: ClassVar[Path] = ("__derived", "run_totals")
    SCOPE = StateScope.RUN
    NAME = "RunTotals"
    ACTION = CountInference | CountTool

    models: dict[str, Totals] = msgspec.field(default_factory=dict)
    tools: dict[str, Totals] = msgspec.field(default_factory=dict)

    def reduce(self, action: CountInference | CountTool) -> None:
        match action:
            case CountInference(model, failed, usage, duration):
                total = self.models.setdefault(model, Totals())
                total.input_tokens += usage.prompt_tokens or 0
                total.output_tokens += usage.completion_tokens or 0
                total.cache_read_tokens += usage.cache_read_tokens or 0
                total.cache_creation_tokens += usage.cache_creation_tokens or 0
            case CountTool(name, failed, duration):
                total = self.tools.setdefault(name, Totals())
        total.count += 1
        total.failures += failed
        total.duration = round(total.duration + duration, 6)


class ObservabilitySink(Protocol):
    """Where spans and metrics go: called in the run's own task, so hand on quickly what takes long."""

    def on_inference(self, span: InferenceSpan) -> None: ...

    def on_tool(self, span: ToolSpan) -> None: ...

    def on_run_end(self, metrics: RunMetrics) -> None: ...


class Observability(AgentBehavior):
    """Tells a sink about every run of the agent.

    Args:
        model, options: What the definition says; a response names the model that answered.
    """

    id = "observability"
    states = (RunTotals,)

    def __init__(
        self,
        sink: ObservabilitySink,
        *,
        model: str = "",
        options: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink, self._model, self._options, self._clock = sink, model, dict(options or {}), clock
        # When things began, for as long as they last: a step never changes the process.
        self._began: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        self._begin(ctx.run_id, "inference")
        return None

    async def before_tool_execute(self, ctx: ReadOnlyContext) -> Effect[BeforeToolExecuteAction]:
        self._begin(ctx.run_id, f"tool {ctx.tool_call_id}")
        return None

    async def after_inference(self, ctx: ReadOnlyContext) -> Effect[AfterInferenceAction]:
        answer, error = ctx.response or StreamResult(), ctx.inference_error
        provider, _, _ = self._model.rpartition(":")
        span = InferenceSpan(
            run_id=ctx.run_id,
            thread_id=ctx.thread_id,
            agent_id=ctx.identity.agent_id,
            step=ctx.step,
            model=self._model or answer.model or "",
            provider=provider,
            response_model=answer.model,
            finish_reasons=(answer.stop_reason.value,) if answer.stop_reason else (),
            error_type=error.type if error else None,
            error_class=error.error_class.value if error and error.error_class else None,
            usage=answer.usage or TokenUsage(),
            options=self._options,
            duration=self._lasted(ctx.run_id, "inference"),
        )
        self._tell("on_inference", span)
        count = CountInference(span.response_model or span.model, error is not None, span.usage, span.duration)
        return AnyStateAction.new(RunTotals, count)

    async def after_tool_execute(self, ctx: ReadOnlyContext) -> Effect[AfterToolExecuteAction]:
        result = ctx.tool_result
        span = ToolSpan(
            run_id=ctx.run_id,
            thread_id=ctx.thread_id,
            agent_id=ctx.identity.agent_id,
            step=ctx.step,
            name=ctx.tool_name or "",
            call_id=ctx.tool_call_id or "",
            status=result.status if result is not None else ToolStatus.ERROR,
            type="extension" if result is not None and "mcp.server" in result.metadata else "function",
            error_type=_error_type(result.data) if result is not None and result.is_error else None,
            duration=self._lasted(ctx.run_id, f"tool {ctx.tool_call_id}"),
        )
        self._tell("on_tool", span)
        return AnyStateAction.new(RunTotals, CountTool(span.name, span.status is ToolStatus.ERROR, span.duration))

    async def run_end(self, ctx: ReadOnlyContext) -> Effect[LifecycleAction]:
        totals, run = ctx.scoped_state_of(RunTotals), find(ctx.document, RUN) or {}
        metrics = RunMetrics(
            run_id=ctx.run_id,
            thread_id=ctx.thread_id,
            agent_id=ctx.identity.agent_id,
            status=str(run.get("status", "")),
            done_reason=run.get("done_reason"),
            models=totals.models,
            tools=totals.tools,
        )
        self._tell("on_run_end", metrics)
        return None

    def _begin(self, run_id: str, what: str) -> None:
        self._began[run_id, what] = self._clock()
        while len(self._began) > _MOST_OPEN:  # of runs that were cut off
            self._began.popitem(last=False)

    def _lasted(self, run_id: str, what: str) -> float:
        began = self._began.pop((run_id, what), None)
        return 0.0 if began is None else max(0.0, self._clock() - began)

    def _tell(self, what: str, record: Any) -> None:
        try:
            getattr(self._sink, what)(record)
        except Exception:
            log.exception("the observability sink failed in %s", what)


def _error_type(data: Any) -> str:
    error = data.get("error") if isinstance(data, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else "tool_error"
