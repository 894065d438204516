"""The pool and its tracer, without a worker around them."""

import asyncio
import select
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery.exceptions import SoftTimeLimitExceeded, Terminated
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from techrevati.fleet.celery.app import FleetCelery, make_celery
from techrevati.fleet.celery.async_task import AsyncTask
from techrevati.fleet.celery.doorbell import Doorbell
from techrevati.fleet.celery.loop_thread import LoopDidNotStart, Places
from techrevati.fleet.celery.pool import TaskPool
from techrevati.fleet.celery.sync_threads import SyncThreads
from techrevati.fleet.celery.tracer import Call, TicketContext, current_request


class Body(AsyncTask):
    """Whatever the test puts in ``body``."""

    name = "unit.body"
    body: Any = None

    async def arun(self, request: Any, *args: Any) -> Any:
        return await type(self).body(*args)


class Results:
    """What the callbacks of one job said."""

    def __init__(self) -> None:
        self.outcome: Any = None
        self.timeouts: list[tuple[bool, float]] = []
        self.thread: str | None = None

    def on_result(self, outcome: Any) -> None:
        self.outcome, self.thread = outcome, threading.current_thread().name

    def on_timeout(self, soft: bool, seconds: float) -> None:
        self.timeouts.append((soft, seconds))


@pytest.fixture
def app() -> Iterator[FleetCelery]:
    app = make_celery("unit", broker_url="redis://127.0.0.1:1/0", role="writer")
    app.register_task(Body())
    yield app
    app.close()


@pytest.fixture
def pool(app: FleetCelery) -> Iterator[TaskPool]:
    pool = TaskPool(limit=3, app=app)
    pool.start()
    yield pool
    pool.terminate()


def spawn(pool: TaskPool, body: Any, *args: Any, **limits: float) -> tuple[Any, Results]:
    Body.body, results = staticmethod(body), Results()
    task = pool.app.tasks[Body.name]
    call = Call(task, "id-1", TicketContext({"id": "id-1"}), args, {})
    return pool.spawn(call, results.on_result, results.on_timeout, None, **limits), results


async def forever() -> None:
    await asyncio.sleep(3600)


def test_result_comes_back_on_the_calling_thread(pool: TaskPool) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    _, results = spawn(pool, double, 21)
    assert pool.wait(5)
    assert (results.outcome.failed, results.outcome.value) == (False, "42")
    assert results.thread == threading.current_thread().name


def test_request_travels_in_a_context_variable_of_each_task(pool: TaskPool) -> None:
    seen: list[object] = []

    async def look() -> None:
        await asyncio.sleep(0)
        seen.append(current_request.get().id)

    spawn(pool, look)
    spawn(pool, look)
    pool.wait(5)
    assert seen == ["id-1", "id-1"]


def test_failure_is_reported_with_its_error(pool: TaskPool, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("no")

    _, results = spawn(pool, fail)
    pool.wait(5)
    info: ExceptionInfo = results.outcome.value
    assert results.outcome.failed
    assert isinstance(info.exception.exc, ValueError)
    assert "Task unit.body[id-1] raised ValueError('no')" in caplog.text


def test_system_exit_in_a_task_does_not_end_the_loop(pool: TaskPool) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def fine() -> str:
        return "fine"

    _, left = spawn(pool, leave)
    pool.wait(5)
    _, results = spawn(pool, fine)
    pool.wait(5)
    assert left.outcome.failed
    assert results.outcome.value == "'fine'"


def test_soft_limit_cancels_and_reports_a_time_limit(pool: TaskPool) -> None:
    _, results = spawn(pool, forever, soft_limit=0.05)
    pool.wait(5)
    assert results.timeouts == [(True, 0.05)]
    assert isinstance(results.outcome.value.exception.exc, SoftTimeLimitExceeded)


def test_task_may_use_what_the_soft_limit_leaves_it(pool: TaskPool) -> None:
    async def tidy() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "tidied"

    _, results = spawn(pool, tidy, soft_limit=0.05, hard_limit=5)
    pool.wait(5)
    assert not results.outcome.failed


def test_hard_limit_frees_the_place_of_a_task_that_ignores_it(pool: TaskPool) -> None:
    release = threading.Event()

    async def ignore() -> None:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    _, results = spawn(pool, ignore, hard_limit=0.05)
    assert pool.wait(5)
    assert pool.free == 3
    assert results.timeouts == [(False, 0.05)]
    assert results.outcome is None
    release.set()


def test_terminate_cancels_once_begun_and_before(pool: TaskPool) -> None:
    job, results = spawn(pool, forever)
    job.terminate(15)
    pool.wait(5)
    assert isinstance(results.outcome.value.exception.exc, Terminated)


def test_places_are_counted_and_drain_closes_them(pool: TaskPool) -> None:
    for _ in range(2):
        spawn(pool, forever)
    assert (pool.active_count, pool.free) == (2, 1)
    pool.begin_drain()
    assert pool.draining
    assert pool.free == 0
    assert not pool.wait(0.05)


def test_service_lives_as_long_as_the_loop(app: FleetCelery) -> None:
    told: list[object] = []

    class Service:
        async def start(self, loop: asyncio.AbstractEventLoop, pool: Places) -> None:
            told.append((loop is asyncio.get_running_loop(), pool.limit))

        async def stop(self) -> None:
            told.append("stopped")

    app.techrevati_runtime = Service()
    pool = TaskPool(limit=7, app=app)
    pool.start()
    pool.stop()
    assert told == [(True, 7), "stopped"]


def test_service_that_fails_refuses_the_worker(app: FleetCelery) -> None:
    class Broken:
        async def start(self, loop: asyncio.AbstractEventLoop, pool: Places) -> None:
            raise OSError("no store")

        async def stop(self) -> None: ...

    app.techrevati_runtime = Broken()
    with pytest.raises(LoopDidNotStart, match=r"Broken did not start: OSError\('no store'\)"):
        TaskPool(limit=1, app=app).start()


def test_telemetry_sees_one_span_per_task(pool: TaskPool) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]  # it says it is typed
    instrumentor.instrument(tracer_provider=provider)
    try:

        async def fail() -> None:
            await asyncio.sleep(0)
            raise ValueError("no")

        Body.body = staticmethod(fail)
        context = TicketContext({"id": "id-2", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
        pool.spawn(Call(pool.app.tasks[Body.name], "id-2", context, (), {}), lambda _: None, None, None)
        pool.wait(5)
    finally:
        instrumentor.uninstrument()
    (span,) = exporter.get_finished_spans()
    assert span.name == "run/unit.body"
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == "a" * 32
    assert not span.status.is_ok


def test_doorbell_wakes_once_for_many_rings() -> None:
    bell = Doorbell()

    def rung() -> bool:
        return bool(select.select([bell.fileno()], [], [], 0)[0])

    assert not rung()
    bell.ring()
    bell.ring()
    assert rung()
    bell.clear()
    assert not rung()
    bell.ring()
    assert rung()
    bell.close()
    bell.ring()  # nobody listens: nothing happens


def test_sync_threads_start_no_more_than_their_limit() -> None:
    threads, barrier, names = SyncThreads(2, name="unit"), threading.Barrier(3), set[str]()

    def work() -> None:
        names.add(threading.current_thread().name)
        barrier.wait(5)

    for _ in range(2):
        threads.submit(work)
    barrier.wait(5)
    for _ in range(2):
        threads.submit(work)
    barrier.wait(5)
    assert names == {"unit_0", "unit_1"}
