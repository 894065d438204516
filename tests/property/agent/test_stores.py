"""Whatever is asked of them, in whatever order: the store in memory and the one in a file answer alike."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from techrevati.agent.state import Patch, Set, TrackedPatch
from techrevati.agent.threads import (
    CheckpointReason,
    Exact,
    InMemoryThreadStore,
    Message,
    MessageQuery,
    Order,
    RunMeta,
    RunOrigin,
    RunQuery,
    RunStatus,
    SqliteThreadStore,
    Thread,
    ThreadChangeSet,
    ThreadListQuery,
    ThreadMetadata,
    ThreadStoreError,
    Visibility,
)

Store = InMemoryThreadStore | SqliteThreadStore
Step = Callable[[Store], Awaitable[Any]]

THREADS = st.sampled_from(["t", "u"])
RUNS = st.sampled_from(["r1", "r2"])
MAYBE = st.one_of(st.none(), st.sampled_from(["p", "q"]))
MESSAGES = st.builds(
    lambda number, hidden, run: Message.user(
        str(number), id=f"m{number}", visibility=Visibility.INTERNAL if hidden else Visibility.ALL
    ).within(run),
    st.integers(0, 5),
    st.booleans(),
    RUNS,
)
PATCHES = st.builds(
    lambda key, value: TrackedPatch(Patch((Set((key,), value),))), st.sampled_from("abc"), st.integers(0, 3)
)
METAS = st.builds(
    RunMeta,
    agent_id=st.sampled_from(["writer", "editor"]),
    origin=st.sampled_from(RunOrigin),
    status=st.sampled_from(RunStatus),
    parent_thread_id=MAYBE,
    termination_code=MAYBE,
)
CHANGES = st.builds(
    ThreadChangeSet,
    run_id=RUNS,
    reason=st.sampled_from(CheckpointReason),
    parent_run_id=MAYBE,
    run_meta=st.one_of(st.none(), METAS),
    messages=st.lists(MESSAGES, max_size=3).map(tuple),
    patches=st.lists(PATCHES, max_size=2).map(tuple),
    snapshot=st.one_of(st.none(), st.none(), st.just({"whole": 1})),
)
WHOLE = st.builds(
    Thread,
    id=THREADS,
    resource_id=MAYBE,
    parent_thread_id=MAYBE,
    state=st.just({"s": 1}),
    messages=st.lists(MESSAGES, max_size=2, unique_by=lambda message: message.id).map(tuple),
    patches=st.lists(PATCHES, max_size=1).map(tuple),
    metadata=st.builds(ThreadMetadata, version=st.integers(0, 4)),
)
CURSOR = st.one_of(st.none(), st.integers(0, 6))
MESSAGE_QUERIES = st.builds(
    MessageQuery,
    after=CURSOR,
    before=CURSOR,
    limit=st.integers(1, 3),
    order=st.sampled_from(Order),
    visibility=st.one_of(st.none(), st.sampled_from(Visibility)),
    run_id=st.one_of(st.none(), RUNS),
)
TIMES = st.one_of(st.none(), st.integers(1, 12))
RUN_QUERIES = st.builds(
    RunQuery,
    offset=st.integers(0, 1),
    limit=st.integers(1, 3),
    thread_id=st.one_of(st.none(), THREADS),
    parent_run_id=MAYBE,
    status=st.one_of(st.none(), st.sampled_from(RunStatus)),
    termination_code=MAYBE,
    origin=st.one_of(st.none(), st.sampled_from(RunOrigin)),
    created_at_from=TIMES,
    created_at_to=TIMES,
    updated_at_from=TIMES,
    updated_at_to=TIMES,
)
LISTS = st.builds(
    ThreadListQuery, offset=st.integers(0, 1), limit=st.integers(1, 2), resource_id=MAYBE, parent_thread_id=MAYBE
)


def append(thread: str, change: ThreadChangeSet, behind: int) -> Step:
    async def act(store: Store) -> Any:
        loaded = await store.load(thread)
        version = 0 if loaded is None else loaded.version - behind
        return await store.append(thread, change, Exact(version))

    return act


def past(thread: str, version: int) -> Step:
    async def act(store: Store) -> Any:
        # A parent is set once: the file shows it at every version, memory from the version that set it.
        return replace(await store.load_at(thread, version), parent_thread_id=None)

    return act


def deltas(thread: str, after: int) -> Step:
    return lambda store: store.load_deltas(thread, after)


STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(append, THREADS, CHANGES, st.sampled_from([0, 0, 0, 0, 1])),
    st.builds(append, THREADS, CHANGES, st.just(0)),
    st.builds(append, THREADS, CHANGES, st.just(0)),
    st.builds(lambda thread: lambda store: store.create(thread), WHOLE),
    st.builds(lambda thread: lambda store: store.save(thread), WHOLE),
    st.builds(lambda thread: lambda store: store.delete(thread), THREADS),
    st.builds(past, THREADS, st.integers(0, 6)),
    st.builds(deltas, THREADS, st.integers(0, 4)),
    st.builds(lambda thread, query: lambda store: store.load_messages(thread, query), THREADS, MESSAGE_QUERIES),
    st.builds(lambda query: lambda store: store.list_runs(query), RUN_QUERIES),
    st.builds(lambda query: lambda store: store.list_threads(query), LISTS),
)


async def told(store: Store, steps: list[Step]) -> list[Any]:
    """Give every answer, errors included, and what stands at the end."""
    answers: list[Any] = []
    await store.create(Thread(id="t"))
    for step in steps:
        try:
            answers.append(await step(store))
        except ThreadStoreError as error:
            answers.append(str(error))
    answers += [await seen(store, thread) for thread in ("t", "u")]
    answers += [await store.load_run(run) for run in ("r1", "r2")]
    answers += [await store.list(), await store.list_runs()]
    return answers


async def seen(store: Store, thread: str) -> list[Any]:
    """Give everything that can be told of a thread, version by version, and of its runs at their very times."""
    loaded = await store.load(thread)
    answers: list[Any] = [loaded, await store.active_run_for_thread(thread)]
    for version in range(0 if loaded is None else loaded.version + 1):
        for step in (past(thread, version), deltas(thread, version)):
            try:
                answers.append(await step(store))
            except ThreadStoreError as error:
                answers.append(str(error))
    for run in (await store.list_runs(RunQuery(thread_id=thread))).items:
        for name in ("created_at_from", "created_at_to", "updated_at_from", "updated_at_to"):
            query = RunQuery(**{name: getattr(run, name.rpartition("_")[0])})
            answers.append(await store.list_runs(query))
    return answers


@given(st.lists(STEPS, max_size=14))
@settings(max_examples=120)
def test_both_stores_answer_alike(steps: list[Step]) -> None:
    def ticking() -> Callable[[], int]:
        return count(1).__next__

    memory = asyncio.run(told(InMemoryThreadStore(clock=ticking()), steps))
    with SqliteThreadStore(":memory:", clock=ticking()) as store:
        stored = asyncio.run(told(store, steps))
    assert stored == memory
