"""Drive a declared agent to its end while its worker dies at one crash point, and say what came of it.

    arm ─▶ start ─▶ the worker dies, the journal is read ─▶ another takes over ─▶ decide ─▶ Trace

Two runs of the same errand are compared by what they left behind, with every id and time named by its first place.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from techrevati.fleet.client import Client, Run
from tests.acceptance.support import Cluster, Process

CHILD = json.dumps([["mark", {"name": "c"}]])
ERRAND: list[Any] = [
    ["mark", {"name": "a"}],
    [["mark", {"name": "quick"}], ["late_mark", {"name": "late"}]],
    ["pay", {"amount": 7}],
    ["agent_run", {"agent_id": "clerk.alpha", "prompt": CHILD}],
]
"""A tool, a parallel batch, a call that waits for the client's decision, a sub-agent with a tool of its own."""

_ID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}(?:\.\d+)?|(?<=decision:)[0-9a-f]+")
OUTSIDE = ("turn.", "run.", "call.", "child.")
"""Events that come when others do something, not when the run does."""
_TIME_MS = range(10**12, 10**14)


@dataclass(slots=True)
class Trace:
    """What a run left behind.

    Attributes:
        thread: Messages, state and committed turns of the run and its children, ids and times renamed.
        marks: How often each call (run id, call id) of a marking tool was carried out.
        asked: How often a model was asked.
        kept: Calls whose results a journal or a thread held when the worker died.
        before: How often each call had been carried out by then.
    """

    run: Run
    thread: Any
    marks: Counter[str]
    asked: int = 0
    died: bool = False
    kept: set[str] = field(default_factory=set)
    before: Counter[str] = field(default_factory=Counter)


def renamed(value: Any) -> Any:
    """Name ids by the order in which they first come, and all times alike: two runs then look the same."""
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return names.setdefault(found[0].replace("-", ""), f"<id {len(names) + 1}>")

    def walk(value: Any) -> Any:
        match value:
            case dict():
                return {walk(key): 0 if key == "waited_ms" else walk(one) for key, one in value.items()}
            case list():
                return [walk(one) for one in value]
            case str():
                return _ID.sub(name, value)
            case int() if value in _TIME_MS:
                return "<time>"
        return value

    return walk(value)


def left_by(client: Client, run: Run) -> list[Any]:
    """Give the threads, outputs and commits of a run and its children."""
    record = run.status()
    thread = client.thread(record.thread_id)
    told = [(event.type, event.data) for event in run.events() if event.n == 0]
    return [
        [dict(message) for message in thread.messages().messages],
        thread.state(),
        str(record.status),
        record.output,
        [data["turn"] for kind, data in told if kind == "turn.committed"],
        [kind for kind, _ in told if not kind.startswith(OUTSIDE)],
        *(left_by(client, client.handle(child.run_id, created=True)) for child in run.children()),
    ]


def runs_of(run: Run) -> list[str]:
    return [run.id, *(child.run_id for child in run.children())]


def marks(cluster: Cluster, run: Run) -> Counter[str]:
    told = (line.removeprefix("mark ") for line in cluster.told("mark "))
    ids = tuple(runs_of(run))
    return Counter(call for call in told if call.startswith(ids))


def kept(cluster: Cluster, client: Client, run: Run) -> set[str]:
    """Give the calls whose results are safe: in a journal, or in a thread as a committed message."""
    found: set[str] = set()
    with cluster.raw() as redis:
        for one in runs_of(run):
            keys = map(str, redis.hkeys(client.keys(one).journal(one)))
            found |= {
                f"{one} {key.partition('step:tool:')[2].partition(':')[0]}" for key in keys if "step:tool:" in key
            }
            thread = client.record(one).thread_id
            if client.record(one).turn > 1:
                said = client.thread(thread).messages().messages
                found |= {f"{one} {message['tool_call_id']}" for message in said if message.get("tool_call_id")}
    return found


def drive(
    cluster: Cluster,
    client: Client,
    worker: Process,
    replace: Callable[[], Process],
    *,
    dies: bool = False,
    timeout: float = 30.0,
) -> Trace:
    """Start the errand, decide what it asks, and replace the worker that `dies`; gives what is left at the end."""
    asked = len(cluster.told("asked "))
    run = client.start("chief.alpha", json.dumps(ERRAND))
    trace = Trace(run, None, Counter())
    deadline = time.monotonic() + timeout
    while True:
        record = run.status()
        if dies and record.status.is_terminal:
            worker.wait_exit(10)  # the last commit is seen a moment before the death that follows it
        if dies and not trace.died and not worker.alive:
            trace.died, trace.before = True, marks(cluster, run)
            trace.kept = kept(cluster, client, run)
            replace()
        if record.status.is_terminal:
            break
        assert time.monotonic() < deadline, record
        for one in record.waits_for or () if record.why == "decision" else ():
            run.decide(one["call_id"], payload="ann")
        time.sleep(0.02)
    trace.marks, trace.thread = marks(cluster, run), renamed(left_by(client, run))
    trace.asked = len(cluster.told("asked ")) - asked
    return trace
