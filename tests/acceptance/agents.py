"""The agents of the acceptance and chaos tests: each does one thing that a test can watch.

Every behaviour is declared once per role, as ``behaviour.role``, so that a test may have a pool of its own:
``make_fleet("alpha", peer="beta")`` has ``count.alpha``, ``relay.alpha``, …  What agents tell goes to a file, which
outlives whatever the test kills.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from techrevati.fleet.agents import AgentFunction
from techrevati.fleet.failures import Retry
from techrevati.fleet.fleet import Fleet
from techrevati.fleet.models import ModelReply, ModelRequest, RetryLater
from techrevati.fleet.outcome import Outcome
from techrevati.fleet.settings import Settings
from techrevati.fleet.sync_turn import SyncTurn
from techrevati.fleet.turn import Turn
from tests.acceptance.declared import ListedModel, definitions
from tests.acceptance.diary import gate, home, tell
from tests.acceptance.heavy import heavy_definitions

FLEET = "accept"
SEAMS = ("after_claim", "before_commit", "after_commit")
"""The crash points that every turn comes by; see `tests.acceptance.seams`."""


class PaidModel:
    """A model that says its words one by one and tells what it was paid for."""

    async def complete(self, request: ModelRequest) -> ModelReply:
        asked = str(request.messages[-1]["content"])
        tell(f"paid {asked}")
        diary = (home() / "diary").read_text().splitlines()
        if asked.startswith("busy") and diary.count(f"paid {asked}") == 1:
            raise RetryLater("paid", 1.2)
        on_delta: Callable[[str], None] = request.options["on_delta"]
        for word in ("so", "it", "is"):
            on_delta(word)
            await asyncio.sleep(float(request.options.get("pace", 0)))
        return ModelReply(f"so it is: {asked}", input_tokens=10, output_tokens=4, cost_micros=70, model=request.model)


class RateLimited(Exception):
    status_code = 429


class BadRequest(Exception):
    status_code = 400


FAILURES: dict[str, Callable[[], Exception]] = {
    "llm_error": lambda: RuntimeError("it went wrong"),
    "llm_timeout": lambda: TimeoutError("no answer"),
    "rate_limit": lambda: RateLimited("slow down"),
    "prompt_rejection": lambda: BadRequest("no such prompt"),
    "dependency_failed": lambda: ConnectionResetError("it hung up"),
}


async def count(turn: Turn) -> Outcome:
    """Have `turns` turns of `seconds` each, and note the number of each in the state."""
    job = turn.input or {}
    tell(f"count {turn.run_id} {turn.number} {turn.attempt} {os.getpid()} {time.time()}")
    turn.state["turns"] = [*turn.state.get("turns", []), turn.number]
    turn.messages.append({"role": "assistant", "content": f"turn {turn.number}"})
    turn.emit("counted", {"turn": turn.number})
    turn.log.info("turn %d counts", turn.number)
    await asyncio.sleep(job.get("seconds", 0.0))
    return turn.complete(turn.state["turns"]) if turn.number >= job.get("turns", 1) else turn.continue_()


async def hold(turn: Turn) -> Outcome:
    """Run a step that waits at a gate, and tell if it was stopped there."""
    name = turn.input["gate"]
    turn.messages.append({"role": "assistant", "content": "holding"})
    tell(f"hold {turn.run_id} {turn.attempt} {os.getpid()}")
    try:
        await gate(name)
    except asyncio.CancelledError:
        tell(f"stopped {turn.run_id} {time.time()}")
        raise
    decided = {call_id: one.payload for call_id, one in turn.decisions.items()}
    if turn.input.get("suspend") and not decided:
        return turn.suspend("ok", {"question": "go on?"})
    return turn.complete({"attempt": turn.attempt, "steering": turn.steering, "decided": decided})


async def plough(turn: Turn) -> Outcome:
    """Be deaf to the first cancellation: wind up for as long as the gate is shut."""
    tell(f"plough {turn.run_id}")
    try:
        await gate(turn.input["gate"])
    except asyncio.CancelledError:
        tell(f"winding {turn.run_id} {time.time()}")
        await asyncio.sleep(turn.input["wind_up"])
        tell(f"wound {turn.run_id} {time.time()}")
        return turn.complete("wound up")
    return turn.complete("undisturbed")


async def steer(turn: Turn) -> Outcome:
    """Take turns until it has been steered."""
    if said := turn.steering:
        return turn.complete({"said": said, "last": turn.messages[-1]})
    return turn.sleep(0.05)


async def relay(turn: Turn) -> Outcome:
    """Hand the run to the peer's relay until it has been `hops` times handed."""
    path = [*turn.state.get("path", []), turn.agent]
    turn.state["path"] = path
    if turn.handed is not None:
        assert turn.handed.context == {"leg": len(path) - 1}
    if len(path) > turn.input["hops"]:
        return turn.complete(path)
    return turn.handoff(f"relay.{os.environ['ACCEPTANCE_PEER']}", reason="your leg", context={"leg": len(path)})


async def stray(turn: Turn) -> Outcome:
    """Hand off to whoever the input names, allowed or not."""
    return turn.handoff(turn.input["to"], reason="astray")


async def ask(turn: Turn) -> Outcome:
    """Suspend once, and give back what was decided."""
    if (decision := turn.decisions.get("ok")) is not None:
        return turn.complete(
            {"action": decision.action, "payload": decision.payload, "expired": decision.expired, "turn": turn.number}
        )
    turn.state["asked"] = True
    return turn.suspend(
        "ok", {"question": "publish?"}, expires=turn.input.get("expires"), default_action="resume", default_payload="so"
    )


async def steps(turn: Turn) -> Outcome:
    """Run a first step, then one that waits at a gate on its first attempt."""
    job = turn.input

    def first() -> str:
        tell(f"first {turn.run_id} {turn.attempt}")
        return "done"

    async def second() -> int:
        tell(f"second {turn.run_id} {turn.attempt} {os.getpid()}")
        if turn.attempt == 1:
            await gate(job["gate"])
        return turn.attempt

    one = await turn.step("first", first)
    two = await turn.step("second", second, policy=job.get("policy", "rerun"))
    return turn.complete({"first": one, "second": two})


async def think(turn: Turn) -> Outcome:
    """Call a model, then fail as often as asked: the model is to be paid once."""
    reply = await turn.model("paid", turn.input["ask"], pace=turn.input.get("pace", 0))
    if turn.failures < turn.input.get("failures", 0):
        raise RuntimeError("after the model")
    if turn.input.get("gate") and turn.attempt == 1:
        await turn.step("settled", lambda: True)
        tell(f"thought {turn.run_id} {os.getpid()}")
        await gate(turn.input["gate"])
    return turn.complete({"text": reply.text, "failures": turn.failures})


async def chat(turn: Turn) -> Outcome:
    """Speak in deltas during each of `turns` turns."""
    for word in range(turn.input["words"]):
        turn.delta("text.delta", {"turn": turn.number, "word": word})
        await asyncio.sleep(turn.input.get("pace", 0.0))
    turn.emit("said", {"turn": turn.number})
    return turn.complete() if turn.number >= turn.input["turns"] else turn.continue_()


async def lead(turn: Turn) -> Outcome:
    """Send out the agents of `send`, each an (agent, input), and tell how they ended."""
    job = turn.input
    if turn.number == 1:
        turn.state["ids"] = []
        for place, (agent, given) in enumerate(job["send"]):
            turn.state["ids"].append(
                await turn.start_child(
                    agent,
                    given,
                    key=f"c{place}" if job.get("keyed") else None,
                    detached=place in job.get("detached", ()),
                )
            )
            tell(f"sent {turn.run_id} {turn.attempt} {turn.state['ids'][-1]} {os.getpid()}")
        if job.get("gate") and turn.attempt == 1:
            await gate(job["gate"])
        if job.get("fail"):
            return turn.fail("cannot go on")
        if job.get("quit"):
            return turn.complete(turn.state["ids"])
        return turn.wait_children(until=job.get("until", "all"), expires=job.get("expires"))
    tell(f"woken {turn.run_id} {turn.number} {time.time()}")
    ended = {run_id: [child.status, child.output, child.error] for run_id, child in turn.children.items()}
    said = {run_id: await turn.children.messages(run_id) for run_id in turn.state["ids"]} if job.get("read") else {}
    states = [(await turn.children.status(run_id)).status for run_id in turn.state["ids"]]
    return turn.complete({"turn": turn.number, "ended": ended, "said": said, "states": states})


async def flaky(turn: Turn) -> Outcome:
    """Raise a failure of the class asked for, `times` times."""
    tell(f"flaky {turn.run_id} {turn.failures} {time.time()}")
    if turn.failures < turn.input["times"] and not (home() / f"gate-{turn.input.get('mended')}").exists():
        raise FAILURES[turn.input["class"]]()
    return turn.complete({"failures": turn.failures})


async def poison(turn: Turn) -> Outcome:
    """Take the whole process down."""
    tell(f"poison {turn.run_id} {turn.attempt} {os.getpid()}")
    os._exit(9)


async def nap(turn: Turn) -> Outcome:
    """Sleep between two turns; tell when they were."""
    tell(f"nap {turn.run_id} {turn.number} {time.time()}")
    return turn.complete() if turn.number > 1 else turn.sleep(turn.input["seconds"])


async def pause(turn: Turn) -> Outcome:
    """Pause inside a turn, after a step that must not run twice."""
    await turn.step("before", lambda: tell(f"before {turn.run_id}"))
    await turn.pause(turn.input["seconds"])
    tell(f"paused {turn.run_id} {time.time()}")
    return turn.complete(turn.number)


async def spoil(turn: Turn) -> Outcome:
    """Make something that cannot be kept."""
    turn.messages.append({"role": "assistant", "content": "never kept"})
    match turn.input["what"]:
        case "state":
            turn.state["bad"] = {1, 2}
        case "output":
            return turn.complete("x" * (2 << 20))
        case "model":
            await turn.model("nobody", "hello")
        case "outcome":
            return turn.fail("cannot be done", {"why": "it is impossible"})
    return turn.complete()


def plain(turn: SyncTurn) -> Any:
    """A plain function: blocks its thread, and has steps and models all the same."""
    noted = turn.step("note", lambda: "noted")
    reply = turn.model("paid", f"plain {turn.run_id}")
    turn.delta("text.delta", {"text": "plain"})
    turn.pause(0.05)
    turn.state["plain"] = turn.number
    if turn.number < turn.input["turns"]:
        return turn.continue_()
    return {"noted": noted, "text": reply.text, "turn": turn.number, "pid": os.getpid()}


BEHAVIOURS: dict[str, AgentFunction] = {
    function.__name__: function
    for function in (
        *(count, hold, plough, steer, relay, stray, ask, steps, think, chat),
        *(flaky, poison, nap, pause, spoil, plain, lead),
    )
}
QUICK_RETRY = Retry(tries=3, base=0.05, cap=0.2)


def make_fleet(role: str, peer: str = "", *, settings: Settings | None = None) -> Fleet:
    """Build the fleet as the workers of `role` see it; its relay may hand off to the peer's."""
    fleet = Fleet(FLEET, settings=settings)
    for name, function in BEHAVIOURS.items():
        handoffs = (f"relay.{peer}",) if name == "relay" and peer else ()
        fallback = "relay.alpha" if role == "fallen" and name == "relay" else None
        fleet.agent(role, name=f"{name}.{role}", handoffs=handoffs, retry=QUICK_RETRY, timeout=30, fallback=fallback)(
            function
        )
    fleet.agent(role, name=f"hasty.{role}", retry=Retry(tries=1), timeout=0.3)(hold)
    # For fault runs: three kills that hit the same turn are chance there, not poison.
    fleet.agent(role, name=f"hardy.{role}", retry=QUICK_RETRY, max_attempts=20)(count)
    for definition in (*definitions(role, peer), *heavy_definitions(role)):
        fleet.define(definition, role=role, retry=QUICK_RETRY, timeout=30)
    fleet.model("paid", PaidModel())
    fleet.model("listed", ListedModel())
    return fleet
