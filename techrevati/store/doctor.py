"""Prove the one invariant: every run that is not terminal stands in exactly one home, the one it names.

    picture.take ──▶ Partition ──diagnose──▶ findings ──twice more──▶ those that stayed

`diagnose` is pure and judges the twin's records, wherever they came from.  `check` is the shell for a live
fleet.  There, runs move while they are read, so a finding counts only if it is there in three looks and its
run did not move between them: every move writes an event, and the finding carries that number.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from techrevati.store import picture
from techrevati.store.keys import PartitionKeys
from techrevati.store.sync import SyncStore
from techrevati.store.twin.records import NEVER, TERMINAL, Partition, Role, Run, Thread

LOOKS, PAUSE = 3, 0.05


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be.  `stamp` tells one state of the subject from its next."""

    kind: str
    partition: int
    subject: str
    text: str
    stamp: str = ""

    def __str__(self) -> str:
        return f"partition {self.partition}: {self.kind}: {self.subject}: {self.text}"


def diagnose(p: Partition) -> list[Finding]:
    """Give everything in a partition that breaks the protocol's invariants; [] is healthy."""
    found = [Finding(kind, p.number, subject, text, stamp) for kind, subject, text, stamp in _all(p)]
    return sorted(found, key=lambda f: (f.kind, f.subject, f.text))


_Raw = tuple[str, str, str, str]


def _all(p: Partition) -> Iterator[_Raw]:
    places = _places(p)
    for run_id, where in places.items():
        if run_id not in p.runs:
            yield "stranger", run_id, f"stands in {' and '.join(sorted(where))}, but no such run is known", ""
    for run in p.runs.values():
        yield from _run(p, run, places.get(run.id, []))
    for thread in p.threads.values():
        yield from _thread(p, thread)
    for role in p.roles.values():
        yield from _role(p, role)


def _places(p: Partition) -> dict[str, list[str]]:
    """Give every place where a run's id stands."""
    places: dict[str, list[str]] = {}

    def note(where: str, members: Sequence[str]) -> None:
        for run_id in members:
            places.setdefault(run_id, []).append(where)

    note("due", list(p.due))
    note("routes", list(p.routes))
    for role in p.roles.values():
        note(f"last:{role.name}", list(role.last))
        for tenant, queue in role.queues.items():
            note(f"ready:{role.name}:{tenant}", list(queue))
    for thread in p.threads.values():
        note(f"line:{thread.tenant}:{thread.id}", thread.line)
    return places


def _home(run: Run) -> list[str]:
    """Give the one place a run says it stands in; none if it is terminal."""
    match run.home:
        case "":
            return []
        case "ready":
            return [f"ready:{run.role}:{run.tenant}"]
        case "last":
            return [f"last:{run.role}"]
        case "line":
            return [f"line:{run.tenant}:{run.thread}"]
        case home:
            return [home]


def _status(run: Run) -> set[str]:
    """Give the statuses a run may show where it stands."""
    match run.home:
        case "":
            return set(TERMINAL)
        case "due" if run.token:
            return {"running"}
        case "due" | "routes":
            return {"waiting"}
        case _:
            return {"queued"}


def _run(p: Partition, run: Run, where: list[str]) -> Iterator[_Raw]:
    stamp = f"{run.seq} {run.home} {run.token} {run.turn}"

    def bad(kind: str, text: str) -> _Raw:
        return kind, run.id, text, stamp

    if sorted(where) != _home(run):
        says = f"says {run.home!r}" if run.home else f"is {run.status}"
        yield bad("home", f"{says}, stands in {' and '.join(sorted(where)) or 'none'}")
    if run.status not in _status(run):
        yield bad("status", f"is {run.status!r} in home {run.home!r}")
    if run.token and not (run.home == "due" and run.why == "lease"):
        yield bad("token", f"holds token {run.token} in home {run.home!r} because of {run.why!r}")
    if run.home == "due" and run.why == "lease":
        if not run.token:
            yield bad("token", "is leased without a token")
        if p.due.get(run.id, 0.0) == NEVER:
            yield bad("token", "has a lease that never ends")
    if run.home == "ready" and run.place is None:
        yield bad("home", "is ready without a place")

    thread = p.threads.get(run.owner)
    if not run.is_terminal:
        if thread is None:
            yield bad("thread", f"is on thread {run.thread!r} of {run.tenant!r}, which is not known")
        elif run.home != "line" and thread.active != run.id:
            yield bad("thread", f"is not in line, but its thread's active run is {thread.active or 'none'}")

    indexed = p.deadlines.get(run.id)
    if run.is_terminal and indexed is not None:
        yield bad("deadline", f"is {run.status} and still in the deadlines index")
    if not run.is_terminal and indexed != run.deadline:
        yield bad("deadline", f"has deadline {run.deadline}, the index says {indexed}")
    if not run.is_terminal and thread is not None and run.id not in thread.runs:
        yield bad("index", "is not among the runs of its thread")
    if run.id not in p.created:
        yield bad("index", "is not in the runs index")
    if run.is_terminal != (run.id in p.ended):
        yield bad("index", f"is {run.status}, and {'not ' if run.is_terminal else ''}in the index of ended runs")

    first, last, count = _stream(p, run)
    if last != run.seq or (count and last - first + 1 != count):
        yield bad("events", f"says {run.seq} events, its stream has {count} from {first} to {last}")
    if p.whole:
        wakeful = sum(not entry_id.startswith("~") for entry_id in run.inbox)
        if wakeful != run.wakes:
            yield bad("inbox", f"counts {run.wakes} entries that wake it, its inbox has {wakeful}")


def _stream(p: Partition, run: Run) -> tuple[int, int, int]:
    if run.id in p.streams:
        return p.streams[run.id]
    return (run.events[0].seq, run.events[-1].seq, len(run.events)) if run.events else (0, 0, 0)


def _thread(p: Partition, t: Thread) -> Iterator[_Raw]:
    stamp = f"{t.version} {t.fence} {t.active} {' '.join(t.line)}"
    name = f"{t.tenant}:{t.id}"
    active = p.runs.get(t.active)
    if t.active and (active is None or active.is_terminal):
        yield "thread", name, f"its active run {t.active} is {active.status if active else 'not known'}", stamp
    if active is not None and active.owner != (t.tenant, t.id):
        yield "thread", name, f"its active run {t.active} belongs to thread {active.thread!r}", stamp
    if t.line and not t.active:
        yield "line", name, f"{len(t.line)} runs in line behind no active run", stamp
    if t.idle == bool(t.active):
        yield "thread", name, "is idle with an active run" if t.active else "has no active run and no TTL", stamp
    if p.whole:
        if t.stored != len(t.messages):
            yield "thread", name, f"counts {t.stored} messages, its list has {len(t.messages)}", stamp
        kept = {version.version for version in t.versions}
        if t.version and t.version not in kept:
            yield "thread", name, f"is at version {t.version}, which is not kept", stamp
        if t.full and t.full not in kept:
            yield "thread", name, f"is based on version {t.full}, which is not kept", stamp


def _role(p: Partition, r: Role) -> Iterator[_Raw]:
    held = sum(map(len, r.queues.values())) + len(r.last)
    stamp = f"{r.ready} {held} {r.lasts} {r.virtual}"
    if held != r.ready:
        yield "account", r.name, f"counts {r.ready} ready runs, {held} are", stamp
    if r.lasts != len(r.last):
        yield "account", r.name, f"counts {r.lasts} runs in the last lane, {len(r.last)} are", stamp
    if r.out < 0:
        yield "account", r.name, f"counts {r.out} tickets out", stamp
    queued = {tenant for tenant, queue in r.queues.items() if queue}
    for tenant in queued.symmetric_difference({*r.tags, *r.capped}):
        has = "ready runs and no tag" if tenant in queued else "a tag and no ready runs"
        yield "tenant", f"{r.name}:{tenant}", f"has {has}", stamp
    for tenant in {*r.tags, *r.capped} & set(r.fair) | set(r.tags) & set(r.capped):
        yield "tenant", f"{r.name}:{tenant}", "has two tags", stamp
    counted = Counter(run.tenant for run in p.runs.values() if run.role == r.name and run.counted)
    for tenant in {*counted, *r.running}:
        if counted[tenant] != r.running.get(tenant, 0):
            text = f"counts {r.running.get(tenant, 0)} running turns against its cap, {counted[tenant]} are"
            yield "cap", f"{r.name}:{tenant}", text, stamp


def check(
    store: SyncStore,
    fleet: str,
    partitions: int,
    *,
    keys: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> list[Finding]:
    """Diagnose a live fleet; with `keys` also find keys that nothing owns and no TTL will remove."""
    found = list[Finding]()
    for number in range(partitions):
        names = PartitionKeys(fleet, number)
        standing = diagnose(picture.take(store, names))
        for _ in range(LOOKS - 1):
            if not standing:
                break
            pause(PAUSE)
            again = set(diagnose(picture.take(store, names)))
            standing = [finding for finding in standing if finding in again]
        found += standing
    if keys:
        found += orphans(store, fleet)
    return found


_KEY = re.compile(r"([a-z]+):\{(.+):(\d+)\}:(.+)", re.DOTALL)
_OF_RUN = frozenset({"run", "inbox", "journal", "calls", "decided", "kids", "asking", "events", "live"})
_OF_THREAD = frozenset({"thread", "msgs", "ckpt", "line", "runsof"})


def orphans(store: SyncStore, fleet: str) -> list[Finding]:
    """Give the keys of a fleet that would stay for ever: no TTL, and no run or thread that is alive."""
    pattern, cursor, found = f"*:{{{picture.literal(fleet)}:*}}:*", 0, list[Finding]()
    while True:
        cursor, page = store.command("SCAN", cursor, "MATCH", pattern, "COUNT", picture.PAGE)
        lasting = [key for key in page if (m := _KEY.fullmatch(key)) and _owned(m[1])]
        for _ in range(2):  # a key may be made, or its owner end, between the two questions
            times = store.commands([("PTTL", key) for key in lasting])
            lasting = [key for key, ttl in zip(lasting, times, strict=True) if ttl == -1]
            lasting = [key for key, alive in zip(lasting, _alive(store, fleet, lasting), strict=True) if not alive]
        for key in lasting:
            if m := _KEY.fullmatch(key):
                found.append(Finding("key", int(m[3]), key, "has no TTL and no live run or thread"))
        if int(cursor) == 0:
            return sorted(found, key=lambda finding: finding.subject)


def _owned(kind: str) -> bool:
    return kind in _OF_RUN or kind in _OF_THREAD or kind in ("claim", "idem", "drop")


def _alive(store: SyncStore, fleet: str, names: Sequence[str]) -> list[bool]:
    """Say for each key whether what owns it is alive."""
    questions: list[tuple[str, str, str]] = []
    for name in names:
        m = _KEY.fullmatch(name)
        assert m is not None
        kind, keys, rest = m[1], PartitionKeys(fleet, int(m[3])), m[4]
        if kind == "idem":
            made = store.command("GET", name) or ""
            kind, rest = "run", made.partition(" ")[0]
        if kind == "drop":
            questions.append(("ZSCORE", keys.drops, rest))
        elif kind in _OF_THREAD:
            questions.append(("HGET", keys.thread(*rest.split(":", 1)), "active"))
        else:
            questions.append(("HGET", keys.run(rest), "home"))
    return [bool(answer) for answer in store.commands(questions)]
