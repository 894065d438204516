"""What a turn costs a thread must not grow with the turns before it."""

import time
import tracemalloc
from statistics import median

import msgspec
import pytest

from techrevati.agent.state import AnyStateAction, GCounter, StateRegistry, StateSpec, TrackedPatch, reduce_actions
from techrevati.agent.state.document import Document
from techrevati.agent.threads import (
    CheckpointReason,
    Exact,
    InMemoryThreadStore,
    Message,
    RunMeta,
    RunOrigin,
    RunStatus,
    Thread,
    ThreadChangeSet,
    ToolCall,
)

TURNS = 200


class Tokens(StateSpec):
    PATH = ("tokens",)
    ACTION = int
    used: GCounter = msgspec.field(default_factory=GCounter)
    last: int = 0

    def reduce(self, action: int) -> None:
        self.used.increment(action)
        self.last = action


STATES = StateRegistry([Tokens])


def turn(document: Document, number: int) -> tuple[Document, list[ThreadChangeSet]]:
    """Give the state after a turn, and its two changes: the model's answer, then its tool's result."""
    after, patch = reduce_actions(
        document, [AnyStateAction.new(Tokens, 1000 + number)], actor="run-1", registry=STATES.lattices
    )
    call = ToolCall(f"call-{number:04}", "search", {"query": "tides"})
    meta = RunMeta("writer", RunOrigin.USER, RunStatus.RUNNING)
    answer = ThreadChangeSet(
        run_id="run-1",
        reason=CheckpointReason.ASSISTANT_TURN_COMMITTED,
        run_meta=meta,
        messages=(Message.assistant("looking it up " * 20, (call,)).within("run-1", number),),
        patches=(TrackedPatch(patch, source="agent", timestamp=number),),
    )
    result = ThreadChangeSet(
        run_id="run-1",
        reason=CheckpointReason.TOOL_RESULTS_COMMITTED,
        messages=(Message.tool("found " * 100, call.id).within("run-1", number),),
    )
    return after, [answer, result]


async def test_200_turns_cost_the_last_as_much_as_the_first() -> None:
    store = InMemoryThreadStore()
    document: Document = {"notes": {f"note-{number}": {"text": "x" * 100} for number in range(1000)}}
    await store.create(Thread(id="t", state=document))
    seconds: list[float] = []
    sizes: list[int] = []
    peaks: list[int] = []
    version = 0
    for number in range(TURNS):
        document, changes = turn(document, number)
        sizes.append(sum(len(msgspec.json.encode(change)) for change in changes))
        measured = number in (10, 100, TURNS - 1)
        if measured:
            tracemalloc.start()
        began = time.perf_counter()
        for change in changes:
            version = await store.append("t", change, Exact(version))
        seconds.append(time.perf_counter() - began)
        if measured:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert version == 2 * TURNS and await store.message_count("t") == 2 * TURNS
    assert max(sizes) - min(sizes) < 64, "what is written is the turn, not the thread"
    # Lists that grow take new room now and then: up to 8 bytes for each of their entries.
    assert max(peaks) - min(peaks) < 4 * 8 * 2 * TURNS, peaks
    first, last = min(seconds[10:60]), min(seconds[-50:])
    assert last < 3 * first, (first, last)
    loaded = await store.load("t")
    assert loaded is not None and loaded.thread.rebuild_state(STATES.lattices) == document


@pytest.mark.bench
async def test_print_what_a_turn_costs() -> None:
    for turns in (200, 2000):
        store = InMemoryThreadStore()
        document: Document = {}
        await store.create(Thread(id="t"))
        reduce_s, append_s = [], []
        for number in range(turns):
            began = time.perf_counter()
            document, changes = turn(document, number)
            reduced = time.perf_counter()
            for change in changes:
                await store.append("t", change, Exact(await store.message_count("t")))
            reduce_s.append(reduced - began)
            append_s.append(time.perf_counter() - reduced)
        for name, spent in (("reduce + build", reduce_s), ("two appends", append_s)):
            first, last = median(spent[10:60]) * 1e6, median(spent[-50:]) * 1e6
            print(f"{turns} turns, {name}: median of turns 10-60 {first:.0f} us, of the last 50 {last:.0f} us")
        began = time.perf_counter()
        loaded = await store.load("t")
        assert loaded is not None
        loaded.thread.rebuild_state(STATES.lattices)
        print(f"{turns} turns, load and rebuild: {(time.perf_counter() - began) * 1e3:.2f} ms")
