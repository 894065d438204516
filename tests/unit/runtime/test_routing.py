"""Routers."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from techrevati.runtime import (
    FailureScenario,
    ProviderRouter,
    RoundRobinProviderRouter,
    StaticProviderRouter,
    WeightedProviderRouter,
)


def ask(router: ProviderRouter, current: str | None = None, *exclude: str) -> str | None:
    return router.select(scenario=FailureScenario.LLM_ERROR, attempt=1, current=current, exclude=exclude)


def test_static_prefers_its_order_and_falls_back() -> None:
    router = StaticProviderRouter(("a", "b"))
    assert isinstance(router, ProviderRouter)
    assert ask(router) == "a"
    assert ask(router, "a") == "b"
    assert ask(router, "a", "b") == "b"
    assert ask(router, None, "a", "b") == "a"
    assert ask(StaticProviderRouter(("a",)), "a") is None
    assert ask(StaticProviderRouter(())) is None


def test_round_robin_goes_on_from_its_cursor() -> None:
    router = RoundRobinProviderRouter(("a", "b", "c"))
    assert [ask(router, "a"), ask(router, None, "c"), ask(router)] == ["b", "a", "b"]
    assert ask(router, "a", "b", "c") is None
    assert ask(router) == "c"
    assert ask(RoundRobinProviderRouter(())) is None


def test_weighted_takes_the_heaviest_then_the_earliest() -> None:
    router = WeightedProviderRouter((("a", 1), ("b", 5), ("c", 5), ("off", 0)))
    assert ask(router) == "b"
    assert ask(router, "b") == "c"
    assert ask(router, "b", "c") == "a"
    assert ask(router, "b", "c", "a") is None


def test_threads_take_turns() -> None:
    router = RoundRobinProviderRouter(("a", "b", "c", "d"))
    barrier = threading.Barrier(4)

    def work(_: int) -> list[str | None]:
        barrier.wait()
        return [ask(router) for _ in range(100)]

    with ThreadPoolExecutor(4) as pool:
        counts = Counter(name for names in pool.map(work, range(4)) for name in names)
    assert set(counts.values()) == {100}
