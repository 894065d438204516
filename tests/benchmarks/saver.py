"""A checkpoint beside a plain SET and GET of the same JSON bytes, and the 1,000th beside the first.

    python -m tests.benchmarks.saver --rounds 400

    state ──┬─▶ saver.put, saver.get           encoding, delta, order, keys included
            └─▶ JSON bytes ready-made ─▶ SET, GET   neither encoding nor decoding included

Workloads, each at 10 and 200 KiB: what an agent's turn changes (one message more, the draft, a counter), a state that
shares nothing with the one before (words, or random characters), and the first put of a thread.  "cold" is a saver
that remembers nothing: a turn on another machine.  "after" is what compresses a big state once it was put: it is
waited for between the measurements, so that neither side has it beside it.
Puts go in turns with SETs, then gets with GETs; what is read is compared with what was put.  The bars hold
for the fastest tenth: on a shared machine everything else only adds, and adds most to what takes longest.
"""

import argparse
import base64
import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from techrevati.store.saver import RedisSaver
from techrevati.store.sync import SyncStore
from tests.benchmarks.harness import Arena, end_on_sigterm
from tests.benchmarks.report import Bar, finish, machine, percentile, show_machine, table, write_json

State = dict[str, Any]
Timings = dict[str, list[float]]
SIZES = {"10 KiB": 10 * 1024, "200 KiB": 200 * 1024}
WORDS = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8").split()
EARLY = 100  # puts at each end of the long thread that are compared


def message(rng: random.Random, words: int = 180) -> State:
    return {"role": "assistant", "content": " ".join(rng.choices(WORDS, k=words)), "tokens": rng.randint(1, 999)}


def state_of(size: int, rng: random.Random) -> State:
    """An agent's state of about `size` bytes."""
    state: State = {"messages": [], "draft": "", "n": 0}
    while len(msgspec.json.encode(state)) < size - 700:
        state["messages"].append(message(rng))
    return state


def a_turn(state: State, rng: random.Random, size: int) -> None:
    """What a turn leaves behind, in a state that stays as long as it is: the last message is another."""
    state["messages"][-1] = message(rng)
    state["draft"] = " ".join(rng.choices(WORDS, k=80))
    state["n"] += 1


def all_new(state: State, rng: random.Random, size: int) -> None:
    state.update(state_of(size, rng), n=state["n"] + 1)


def random_characters(state: State, rng: random.Random, size: int) -> None:
    """A state that no compressor and no delta can do much about."""
    messages = [{"role": "tool", "content": _fresh(size // 8 - 40, rng)} for _ in range(8)]
    state.update(messages=messages, draft="", n=state["n"] + 1)


def _fresh(length: int, rng: random.Random) -> str:
    return base64.b64encode(rng.randbytes(length * 3 // 4)).decode()


WORKLOADS: dict[str, Callable[[State, random.Random, int], None]] = {
    "a turn": a_turn,
    "unrelated words": all_new,
    "unrelated random": random_characters,
    "first put": all_new,
}


def timed(into: list[float], operation: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    result = operation()
    into.append((time.perf_counter() - begin) * 1e6)
    return result


def warming() -> Timings:
    """Give where the first timings go, which nobody reads."""
    return defaultdict(list)


def compare(arena: Arena, store: SyncStore, size: int, workload: str, rounds: int) -> Timings:
    """Put and get in turns with SET and GET; us each."""
    rng, change = random.Random(size), WORKLOADS[workload]
    raw, fleet = arena.redis.from_url(arena.url), f"bench-{workload.replace(' ', '-')}-{size}"
    saver, cold = RedisSaver(store, fleet), RedisSaver(store, fleet, memory=0)
    state, took = state_of(size, rng), Timings()
    for name in ("put", "SET", "after", "get", "cold get", "GET"):
        took[name] = []

    def thread_of(index: int) -> str:
        return f"thread{index}" if workload == "first put" else "thread"

    for index in range(-5, rounds):
        change(state, rng, size)
        text, took_now = msgspec.json.encode(state), took if index >= 0 else warming()
        does: dict[str, Callable[[], Any]] = {
            "put": lambda index=index: saver.put(thread_of(index), state),  # type: ignore[misc]
            "SET": lambda text=text: raw.set("raw", text),  # type: ignore[misc]
        }
        for name in ("put", "SET") if index % 2 else ("SET", "put"):
            timed(took_now[name], does[name])
        timed(took_now["after"], saver.settle)
    for index in range(-5, rounds):
        change(state, rng, size)
        text, took_now = msgspec.json.encode(state), took if index >= 0 else warming()
        thread = thread_of(rounds + index)
        saver.put(thread, state)
        saver.settle()
        raw.set("raw", text)
        found = timed(took_now["get"], lambda thread=thread: saver.get(thread))  # type: ignore[misc]
        assert timed(took_now["GET"], lambda: raw.get("raw")) == text
        other = timed(took_now["cold get"], lambda thread=thread: cold.get(thread))  # type: ignore[misc]
        assert found.state == other.state == state
    saver.close()
    raw.close()
    return took


def lengthen(store: SyncStore, turns: int) -> tuple[list[float], list[float]]:
    """Put the last of `turns` checkpoints of 10 KiB on one thread, in turns with the first of others; us each."""
    rng, first, last = random.Random(1), list[float](), list[float]()
    saver, state = RedisSaver(store, "long"), state_of(SIZES["10 KiB"], rng)
    ends = min(EARLY, turns // 3)
    for _ in range(turns - ends):
        a_turn(state, rng, 0)
        saver.put("long", state)
    for index in range(ends):
        if index % 25 == 0:  # the first puts of a thread are whole ones: they have nothing to build on
            young = f"young{index}"
            saver.put(young, state)
        a_turn(state, rng, 0)
        timed(last, lambda: saver.put("long", state))
        timed(first, lambda young=young: saver.put(young, state))  # type: ignore[misc]
    found = saver.get("long")
    assert found is not None
    assert found.state == state
    return first, last


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    end_on_sigterm()
    us: dict[str, Timings] = {}
    with Arena() as arena, SyncStore(arena.url) as store:
        facts = machine(arena.server_version())
        for name in WORKLOADS:
            for shown, size in SIZES.items():
                us[f"{name}, {shown}"] = compare(arena, store, size, name, options.rounds)
        young, old = lengthen(store, options.turns)

    print(show_machine(facts))
    print(f"\n{options.rounds} rounds, in turns; us; the ratio is SET or GET by ours\n")
    rows, bars = list[list[str]](), list[Bar]()
    for workload, took in us.items():
        for shown, q in (("p10", 0.1), ("p50", 0.5)):
            at = {name: percentile(values, q) for name, values in took.items()}
            ratios = at["SET"] / at["put"], at["GET"] / at["get"], at["GET"] / at["cold get"]
            figures = [f"{at[name]:.0f}" for name in ("SET", "put", "after", "GET", "get", "cold get")]
            rows.append([f"{workload}, {shown}", *figures, *(f"{ratio:.2f}" for ratio in ratios)])
            if q == 0.1:
                put, get, _cold = ratios
        bars += [Bar(f"put of {workload}", put, 0.7), Bar(f"get of {workload}", get, 0.7)]
    print(
        table(["workload", "SET", "put", "after", "GET", "get", "cold get", "put ×", "get ×", "cold ×"], rows),
        end="\n\n",
    )
    early, late = percentile(young, 0.1), percentile(old, 0.1)
    print(f"puts 2 to 26 of a thread: {early:.0f} us, the last {len(old)} of {options.turns}: {late:.0f} us (p10)\n")
    bars.append(Bar(f"time of put {options.turns} by put 2", late / early, 1.2, at_least=False))
    write_json(
        options.json,
        {"benchmark": "saver", "options": vars(options), "machine": facts, "us": us, "young": young, "old": old}
        | {"bars": [bar.asdict() for bar in bars]},
    )
    finish(bars)


if __name__ == "__main__":
    main()
