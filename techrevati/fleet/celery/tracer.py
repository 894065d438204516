"""Run one coroutine task as Celery's tracer runs a function: hooks, signals, result, outcome.

    Call(task, context, args) ──run──▶ Outcome (failed, value, seconds)

The stock tracer is one synchronous closure over a thread-local request stack; thousands of tasks
share our thread, so the request travels as an argument and as `current_request`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo
from celery import signals, states
from celery.app.task import Context
from celery.app.trace import task_has_custom
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded, Terminated

log = logging.getLogger(__name__)

current_request: ContextVar[Any] = ContextVar("techrevati_current_request")


class TicketContext(Context):  # type: ignore[misc]  # celery is untyped
    """`celery.app.task.Context` filled from message headers, without its costly sieve for custom ones."""

    def __init__(self, *parts: Mapping[str, Any]) -> None:
        for part in parts:
            self.__dict__.update(part)


class Outcome(NamedTuple):
    """What `Request.on_success` unpacks."""

    failed: bool
    value: Any  # repr of the result, or ExceptionInfo
    seconds: float


@dataclass(slots=True)
class Call:
    """One task to run."""

    task: Any
    id: str
    context: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


@dataclass(slots=True)
class Interrupt:
    """Why the pool cancelled a task; the tracer words it for Celery."""

    soft_limit: float | None = None
    signal: int | None = None


def failure(error: BaseException) -> ExceptionInfo:
    """Wrap `error` in what Celery's request callbacks expect."""
    try:
        raise error
    except BaseException:  # noqa: BLE001  # raised one line above, to be captured
        return ExceptionInfo()


async def run(call: Call, interrupt: Interrupt) -> Outcome:
    """Run the task's ``arun``; never raises, cancelled or not."""
    task, began = call.task, time.monotonic()
    current_request.set(call.context)
    state, value = states.SUCCESS, None
    if signals.task_prerun.receivers:
        _send(call, signals.task_prerun, task=task, task_id=call.id, args=call.args, kwargs=call.kwargs)
    try:
        value = await task.arun(call.context, *call.args, **call.kwargs)
    except asyncio.CancelledError as error:
        state, outcome = await _cancelled(call, interrupt, error, began)
    except (Ignore, Reject) as error:
        state, outcome = states.IGNORED, Outcome(True, failure(error), time.monotonic() - began)
    except (SystemExit, KeyboardInterrupt) as error:  # must not end the loop that everyone shares
        state, outcome = states.FAILURE, await _failed(call, RuntimeError(f"task raised {error!r}"), began)
    except Exception as error:  # noqa: BLE001  # the task's own, reported through Celery
        state, outcome = states.FAILURE, await _failed(call, error, began)
    else:
        outcome = await _succeeded(call, value, began)
    if task_has_custom(task, "after_return") and state != states.IGNORED:
        _hook(call, task.after_return, state, value, call.id, call.args, call.kwargs, None)
    if signals.task_postrun.receivers:
        _send(
            call,
            signals.task_postrun,
            task=task,
            task_id=call.id,
            args=call.args,
            kwargs=call.kwargs,
            retval=value,
            state=state,
        )
    return outcome


async def _succeeded(call: Call, value: Any, began: float) -> Outcome:
    task, seconds = call.task, time.monotonic() - began
    if not (task.ignore_result or call.context.ignore_result):
        await _in_thread(task.backend.mark_as_done, call.id, value, call.context, True)
    if task_has_custom(task, "on_success"):
        _hook(call, task.on_success, value, call.id, call.args, call.kwargs)
    if signals.task_success.receivers:
        _send(call, signals.task_success, result=value, runtime=seconds)
    return Outcome(False, None if value is None else repr(value)[:256], seconds)


async def _failed(call: Call, error: BaseException, began: float) -> Outcome:
    task, info = call.task, failure(error)
    if isinstance(error, Retry):
        return Outcome(True, info, time.monotonic() - began)
    level = logging.INFO if isinstance(error, task.throws or ()) else logging.ERROR
    log.log(level, "Task %s[%s] raised %r", task.name, call.id, error, exc_info=error)
    if not task.ignore_result or task.store_errors_even_if_ignored:
        await _in_thread(task.backend.mark_as_failure, call.id, error, info.traceback, call.context)
    if task_has_custom(task, "on_failure"):
        _hook(call, task.on_failure, error, call.id, call.args, call.kwargs, info)
    if signals.task_failure.receivers:
        _send(
            call,
            signals.task_failure,
            task_id=call.id,
            exception=error,
            args=call.args,
            kwargs=call.kwargs,
            traceback=error.__traceback__,
            einfo=info,
        )
    return Outcome(True, info, time.monotonic() - began)


async def _cancelled(
    call: Call, interrupt: Interrupt, error: asyncio.CancelledError, began: float
) -> tuple[str, Outcome]:
    # The cancellation has been delivered and is answered here: the task that runs us ends with it.
    if interrupt.signal is not None:
        return states.REVOKED, Outcome(True, failure(Terminated(interrupt.signal)), time.monotonic() - began)
    if interrupt.soft_limit is not None:
        limit = SoftTimeLimitExceeded(interrupt.soft_limit)
        limit.__traceback__ = error.__traceback__
        return states.FAILURE, await _failed(call, limit, began)
    return states.FAILURE, await _failed(call, error, began)


async def _in_thread(function: Callable[..., object], *args: object) -> None:
    await asyncio.get_running_loop().run_in_executor(None, function, *args)


def _send(call: Call, signal: Any, **fields: Any) -> None:
    """Send a signal with ``task.request`` in place for as long as its receivers run."""
    stack = call.task.request_stack
    stack.push(call.context)
    try:
        signal.send(sender=call.task, **fields)
    finally:
        stack.pop()


def _hook(call: Call, hook: Callable[..., object], *args: object) -> None:
    call.task.request_stack.push(call.context)
    try:
        hook(*args)
    except Exception:
        log.exception("Task %s[%s]: handler %s failed", call.task.name, call.id, hook.__name__)
    finally:
        call.task.request_stack.pop()
