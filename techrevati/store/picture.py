"""Read one partition as it stands, into the twin's records.  Writes nothing.

    homes, indexes ──▶ ids ──batches of 200──▶ runs ──▶ threads ──▶ Partition
                   roles ──▶ accounts, tags, queues

Nothing is locked: of a fleet at work it is a picture taken with a slow shutter, and `doctor` looks twice.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from techrevati.store.calls import Arg
from techrevati.store.keys import PartitionKeys, coordinator_queue, queue_name
from techrevati.store.records import pairs
from techrevati.store.sync import SyncStore
from techrevati.store.twin.records import Delta, Entry, Event, Partition, Pending, Role, Run, Thread, Version

T = TypeVar("T")
Fields = dict[str, str]

BATCH = 200
PAGE = 1000

_CORE = (
    *("tenant", "thread", "role", "agent", "home", "status", "token", "worker", "why", "until", "detail"),
    *("turn", "attempt", "maxa", "fails", "hops", "target", "priority", "score", "counted", "created", "ended"),
    *("next_at", "deadline", "parent", "idem", "cancel", "cancel_by", "grace", "resume", "retried", "felled", "pardon"),
    *("v0", "f0", "k0", "commit", "released", "reason", "seq", "lseq", "ln", "wakes", "inbox_n", "open"),
)
_TEXTS = ("handed", "waits", "output", "error", "reply", "lb", "tin", "tout", "micros")
_OWN = frozenset((*_CORE, *_TEXTS, "j", "kids", "asks", "below"))


def take(store: SyncStore, keys: PartitionKeys, *, contents: bool = False) -> Partition:
    """Give a partition's picture; with `contents` also payloads, inboxes, journals, messages and events.

    Without them it is small enough to take of a busy fleet.
    """
    p = Partition(keys.fleet, keys.partition, whole=contents)
    _head(store, keys, p)
    names = store.command("SMEMBERS", keys.roles)
    for role in sorted(names):
        p.roles[role] = _role(store, keys, role)
    ids = {*p.created, *p.due, *p.routes, *p.deadlines}
    for r in p.roles.values():
        ids.update(r.last, *r.queues.values())
    _runs(store, keys, p, ids, contents)
    lined = _threads(store, keys, p, contents)
    _runs(store, keys, p, lined - ids, contents)
    _queues(store, keys, p)
    if contents:
        _broker(store, keys, p)
    return p


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _scan(store: SyncStore, key: str) -> dict[str, float]:
    """Read a sorted set in pages; what stood there all the while is seen."""
    found, cursor = dict[str, float](), 0
    while True:
        cursor, page = store.command("ZSCAN", key, cursor, "COUNT", PAGE)
        found.update((member, float(score)) for member, score in pairs(page).items())
        if int(cursor) == 0:
            return found


def _int(fields: Fields, name: str) -> int:
    return int(fields.get(name) or 0)


def _maybe(fields: Fields, name: str) -> int | None:
    return int(value) if (value := fields.get(name)) else None


def _head(store: SyncStore, keys: PartitionKeys, p: Partition) -> None:
    clock, weights, sweeper = store.commands(
        [("HGETALL", keys.clock), ("HGETALL", keys.weights), ("HMGET", keys.sweeper, "holder", "until")]
    )
    clock = pairs(clock)
    p.clock, p.minimum = _int(clock, "us"), _maybe(clock, "min")
    p.fenced, p.dropped = _int(clock, "fenced"), _int(clock, "drops")
    p.drops = {int(number): _scan(store, keys.drop(number)) for number in _scan(store, keys.drops)}
    p.weights = {tenant: float(weight) for tenant, weight in pairs(weights).items()}
    p.sweeper = (sweeper[0], int(sweeper[1])) if sweeper[0] else None
    p.due, p.routes = _scan(store, keys.due), _scan(store, keys.routes)
    p.deadlines, p.created, p.ended = (
        _scan(store, keys.deadlines),
        _scan(store, keys.runs),
        _scan(store, keys.ended),
    )


def _role(store: SyncStore, keys: PartitionKeys, name: str) -> Role:
    account, running, pool = store.commands(
        [("HGETALL", keys.tickets(name)), ("HGETALL", keys.running(name)), ("HGETALL", keys.pool(name))]
    )
    account = pairs(account)
    r = Role(name, known=True)
    r.ready, r.out, r.window = _int(account, "ready"), _int(account, "out"), _int(account, "window")
    r.lasts = _int(account, "last")
    r.virtual = float(account.get("v") or 0)
    r.since, r.patience, r.sent = _int(account, "since"), _int(account, "patience"), _int(account, "n")
    r.template, r.cap = account.get("template", ""), _maybe(account, "cap")
    r.tags, r.capped = _scan(store, keys.ready(name)), _scan(store, keys.capped(name))
    r.fair, r.last = _scan(store, keys.fair(name)), _scan(store, keys.last(name))
    r.running = {tenant: int(n) for tenant, n in pairs(running).items()}
    for worker, text in pairs(pool).items():
        places, expires = text.split(":")
        r.pool[worker] = int(places), int(expires)
    for tenant in {*r.tags, *r.capped, *r.fair}:
        r.queues[tenant] = _scan(store, keys.ready(name, tenant))
    return r


def _queues(store: SyncStore, keys: PartitionKeys, p: Partition) -> None:
    """Read the ready sets that no tag leads to but a run belongs in."""
    for role, tenant in sorted({(run.role, run.tenant) for run in p.runs.values()}):
        if role in p.roles and tenant not in p.roles[role].queues:
            p.roles[role].queues[tenant] = _scan(store, keys.ready(role, tenant))
    for r in p.roles.values():
        r.queues = {tenant: queue for tenant, queue in r.queues.items() if queue}


def _runs(store: SyncStore, keys: PartitionKeys, p: Partition, ids: Iterable[str], contents: bool) -> None:
    names = (*_CORE, *_TEXTS) if contents else _CORE
    for chunk in chunks(sorted(ids), BATCH):
        asked: list[Sequence[Arg]] = []
        for run_id in chunk:
            if contents:
                asked.append(("HGETALL", keys.run(run_id)))
            else:
                asked.append(("HMGET", keys.run(run_id), *names))
            events = keys.events(run_id)
            asked += [("XLEN", events), ("XRANGE", events, "-", "+", "COUNT", 1)]
            asked.append(("XREVRANGE", events, "+", "-", "COUNT", 1))
        found = store.commands(asked)
        for run_id, (fields, count, first, last) in zip(chunk, chunks(found, 4), strict=True):
            if contents:
                fields = pairs(fields)
            else:
                fields = {name: value for name, value in zip(names, fields, strict=True) if value is not None}
            if "tenant" not in fields:
                continue
            run = p.runs[run_id] = parse_run(run_id, fields)
            p.streams[run_id] = (_seq(first), _seq(last), int(count))
            if contents:
                _contents(store, keys, run, fields)


def _seq(entries: Sequence[tuple[str, Fields]]) -> int:
    return int(entries[0][0].partition("-")[0]) if entries else 0


def parse_run(run_id: str, fields: Fields) -> Run:
    """Read a run's hash."""
    reply = fields.get("reply")
    version, home, role = reply.split(" ") if reply else ("", "", "")
    return Run(
        id=run_id,
        tenant=fields["tenant"],
        thread=fields.get("thread", ""),
        role=fields.get("role", ""),
        agent=fields.get("agent", ""),
        home=fields.get("home", ""),
        status=fields.get("status", ""),
        token=fields.get("token", ""),
        worker=fields.get("worker", ""),
        why=fields.get("why", ""),
        until=_maybe(fields, "until"),
        detail=fields.get("detail", ""),
        turn=_int(fields, "turn"),
        attempt=_int(fields, "attempt"),
        max_attempts=_int(fields, "maxa"),
        fails=_int(fields, "fails"),
        hops=_int(fields, "hops"),
        target=fields.get("target", ""),
        handed=fields.get("handed", ""),
        priority=_int(fields, "priority"),
        place=_maybe(fields, "score"),
        counted=fields.get("counted") == "1",
        created=_int(fields, "created"),
        ended=_maybe(fields, "ended"),
        begin=_maybe(fields, "next_at"),
        deadline=_maybe(fields, "deadline"),
        parent=fields.get("parent", ""),
        idem=fields.get("idem", ""),
        cancel=fields.get("cancel", ""),
        cancel_by=_maybe(fields, "cancel_by"),
        grace=_int(fields, "grace"),
        resume=fields.get("resume", ""),
        retried=fields.get("retried") == "1",
        felled=fields.get("felled") == "1",
        pardon=_int(fields, "pardon"),
        rollback_to=_int(fields, "v0"),
        rollback_full=_int(fields, "f0"),
        rollback_base=_int(fields, "k0"),
        commit=fields.get("commit", ""),
        reply=(version, home, role) if reply else None,
        released=fields.get("released", ""),
        waits=fields.get("waits", ""),
        output=fields.get("output", ""),
        error=fields.get("error", ""),
        reason=fields.get("reason", ""),
        usage=(_int(fields, "tin"), _int(fields, "tout"), _int(fields, "micros")),
        seq=_int(fields, "seq"),
        live_seq=_int(fields, "lseq"),
        live_n=_int(fields, "ln"),
        live_batch=fields.get("lb", ""),
        wakes=_int(fields, "wakes"),
        open=_int(fields, "open"),
        inbox_n=_int(fields, "inbox_n"),
        extra={name: value for name, value in fields.items() if name not in _OWN},
    )


def _contents(store: SyncStore, keys: PartitionKeys, run: Run, fields: Fields) -> None:
    inbox, journal, asked, decided, kids, asking, events, live = store.commands(
        [
            ("HGETALL", keys.inbox(run.id)),
            ("HGETALL", keys.journal(run.id)),
            ("HGETALL", keys.calls(run.id)),
            ("HGETALL", keys.decided(run.id)),
            ("SMEMBERS", keys.kids(run.id)),
            ("HGETALL", keys.asking(run.id)),
            ("XRANGE", keys.events(run.id), "-", "+"),
            ("XRANGE", keys.live(run.id), "-", "+"),
        ]
    )
    for entry_id, text in pairs(inbox).items():
        order, kind, body = text.split(" ", 2)
        run.inbox[entry_id] = Entry(int(order), kind, body)
    run.journal, run.decided, run.kids = pairs(journal), pairs(decided), set(kids)
    run.asking = pairs(asking)
    for name, value in pairs(asked).items():
        what, _, call_id = name.partition(":")
        if what == "id":
            run.calls[call_id] = value
        else:
            expires, _, default = value.partition(" ")
            run.expiries[call_id] = Pending(int(expires), default)
    for entry_id, said in events:
        said = pairs(said)
        run.events.append(Event(int(entry_id.partition("-")[0]), said.pop("type"), said.pop("c"), said))
    for entry_id, said in live:
        seq, _, n = entry_id.partition("-")
        said = pairs(said)
        run.live.append(Delta(int(seq), int(n), said["type"], int(said["attempt"]), said["data"]))


def _threads(store: SyncStore, keys: PartitionKeys, p: Partition, contents: bool) -> set[str]:
    """Read every thread that a run names; gives the runs in their lines."""
    lined = set[str]()
    for chunk in chunks(sorted({run.owner for run in p.runs.values()}), BATCH):
        asked: list[Sequence[Arg]] = []
        for owner in chunk:
            asked += [("HGETALL", keys.thread(*owner)), ("LRANGE", keys.line(*owner), 0, -1)]
            asked.append(("ZRANGE", keys.runsof(*owner), 0, -1, "WITHSCORES"))
            if contents:
                asked += [("LRANGE", keys.messages(*owner), 0, -1), ("XRANGE", keys.checkpoints(*owner), "-", "+")]
        for owner, (fields, line, runs, *more) in zip(
            chunk, chunks(store.commands(asked), 5 if contents else 3), strict=True
        ):
            lined.update(line)
            if not fields and not line:
                continue
            p.threads[owner] = t = parse_thread(*owner, pairs(fields))
            t.line, t.runs = line, {run_id: float(created) for run_id, created in pairs(runs).items()}
            if more:
                t.messages = more[0]
                t.versions = [_version(entry_id, pairs(said)) for entry_id, said in more[1]]
    return lined


def parse_thread(tenant: str, thread: str, fields: Fields) -> Thread:
    """Read a thread's hash."""
    return Thread(
        tenant=tenant,
        id=thread,
        created=_int(fields, "created"),
        version=_int(fields, "version"),
        commit=fields.get("commit", ""),
        fence=_int(fields, "fence"),
        active=fields.get("active", ""),
        stored=_int(fields, "n"),
        spans=fields.get("spans", "0:"),
        bytes=_int(fields, "bytes"),
        worker=fields.get("worker", ""),
        full=_int(fields, "full"),
        base=_maybe(fields, "base"),
        since=_int(fields, "since"),
        idle=fields.get("ttl") == "1",
        origin=fields.get("origin", ""),
    )


def _version(entry_id: str, said: Fields) -> Version:
    kind = next((name for name in ("f", "d") if name in said), "")
    return Version(
        version=int(entry_id.partition("-")[0]),
        commit=said["c"],
        previous=said["p"],
        messages=int(said["n"]),
        spans=said["s"],
        run=said["r"],
        at=_int(said, "a"),
        turn=_maybe(said, "t"),
        kind=kind,
        state=said.get(kind, ""),
        back_to=int(said["b"]) if "b" in said else None,
        back_full=int(said["bf"] or 0) if "bf" in said else None,
    )


def _broker(store: SyncStore, keys: PartitionKeys, p: Partition) -> None:
    for role in p.roles:
        if pushed := store.command("LRANGE", queue_name(keys.fleet, role), 0, -1):
            p.tickets[role] = pushed
    p.bells = store.command("LLEN", coordinator_queue(keys.fleet))
    for claim_key in store.redis.scan_iter(match=f"claim:{literal(keys.tag)}:*", count=PAGE):
        p.claims[claim_key.rpartition(":")[2]] = store.command("GET", claim_key)
    for idem_key in store.redis.scan_iter(match=f"idem:{literal(keys.tag)}:*", count=PAGE):
        first, _, digest = store.command("GET", idem_key).partition(" ")
        p.idem[idem_key.rpartition(":")[2]] = first, digest


def literal(text: str) -> str:
    """Take a key's part literally in a SCAN pattern."""
    return "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in text)
