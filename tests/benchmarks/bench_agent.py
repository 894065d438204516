"""What a step of the agent loop costs in CPU, beside the model: one inference, one tool call, stored in memory.

    history before the run × rounds into the run ──▶ median CPU ms of 50 steps

Run: ``python -m tests.benchmarks.bench_agent``
"""

import asyncio
import platform
import statistics
import time
from collections.abc import Sequence

from techrevati.agent.building import build
from techrevati.agent.definition import AgentDefinition
from techrevati.agent.loop.outcome import Continue
from techrevati.agent.loop.ports import Ports
from techrevati.agent.loop.starting import prepare_run, store_run
from techrevati.agent.loop.step import step
from techrevati.agent.model import ModelRequest, OnEvent, StreamResult
from techrevati.agent.running import StoreCommitter
from techrevati.agent.threads.ids import unix_ms
from techrevati.agent.threads.memory import InMemoryThreadStore
from techrevati.agent.threads.message import Message, Role, ToolCall
from techrevati.agent.threads.runs import RunRequest
from techrevati.agent.threads.thread import Thread
from techrevati.agent.typed_tool import tool

WINDOW = 50


@tool
async def plus(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


class Endless:
    """Asks for one more sum, for ever."""

    def __init__(self) -> None:
        self.asked = 0

    async def infer(self, request: ModelRequest, on_event: OnEvent) -> StreamResult:
        self.asked += 1
        return StreamResult(tool_calls=(ToolCall(f"c{self.asked}", "plus", {"a": self.asked}),))


async def measure(history: int, rounds: int) -> Sequence[float]:
    """Give the CPU seconds of each step of one run, over a thread of `history` messages."""
    agent = build(AgentDefinition(id="a", model="m", tools=(plus,), max_rounds=0))
    store = InMemoryThreadStore()
    await store.create(Thread(id="t", messages=tuple(Message.user(f"message {n}") for n in range(history))))
    request = RunRequest(agent_id="a", thread_id="t", messages=(Message.user("go"),))
    ready = prepare_run(agent, request, await store.load("t"), now_ms=unix_ms())
    checkpoint = await store_run(store, ready)
    ports = Ports(model=Endless(), committer=StoreCommitter(store))
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        outcome = await step(agent, checkpoint, ports)
        taken.append(time.process_time() - begun)
        assert isinstance(outcome, Continue)
        checkpoint = outcome.checkpoint
    results = [message for message in checkpoint.messages if message.role is Role.TOOL]
    assert len(results) == rounds and f'"data":{rounds + 1}' in results[-1].content
    return taken


def main() -> None:
    print(f"Python {platform.python_version()}, {platform.machine()}; CPU ms per step, median of {WINDOW}")
    print(f"{'messages before':>16} {'first rounds':>13} {'after 350 rounds':>17}")
    for history in (0, 1000, 5000):
        taken = asyncio.run(measure(history, 400))
        first, last = (statistics.median(part) * 1e3 for part in (taken[:WINDOW], taken[-WINDOW:]))
        print(f"{history:>16} {first:>13.2f} {last:>17.2f}")


if __name__ == "__main__":
    main()
