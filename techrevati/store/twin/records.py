"""What one partition holds, as plain records.

    Partition ── runs ──▶ Run (its home, token, inbox, journal)
              ── threads ──▶ Thread (versions, messages, the line behind the active run)
              ── roles ──▶ Role (ready work by tenant, ticket account, pool)
              ── due · routes · deadlines ──▶ who stands where, until when

The scripts of `twin` move these; `picture` reads the same records from Redis; `doctor` judges either.
Times are microseconds since the epoch; `NEVER` is a wait without an end.
"""

from dataclasses import dataclass, field

from techrevati.store.keys import CALL_PREFIX

NEVER = float("inf")
TERMINAL = frozenset({"completed", "failed", "cancelled", "superseded", "dead"})


@dataclass(slots=True)
class Entry:
    """Something in an inbox; `order` counts all that ever came to the run."""

    order: int
    kind: str
    body: str

    def text(self) -> str:
        return f"{self.order} {self.kind} {self.body}"


@dataclass(slots=True)
class Pending:
    """When a suspended call expires, and the decision that is put then."""

    expires: int
    default: str


@dataclass(slots=True)
class Event:
    """One durable event: its number, what it says, and the claim that wrote it ("-" for anyone else)."""

    seq: int
    type: str
    by: str
    fields: dict[str, str]


@dataclass(slots=True)
class Delta:
    """One entry of the live stream: the `n`-th behind durable event `seq`."""

    seq: int
    n: int
    type: str
    attempt: int
    data: str


@dataclass(slots=True)
class Run:
    """One execution over a thread.  `home` is "" once it is terminal."""

    id: str
    tenant: str
    thread: str
    role: str
    agent: str
    home: str = ""
    status: str = "queued"
    token: str = ""
    worker: str = ""
    why: str = ""
    until: int | None = None
    detail: str = ""
    turn: int = 1
    attempt: int = 0
    max_attempts: int = 3
    fails: int = 0
    hops: int = 0
    target: str = ""
    handed: str = ""
    priority: int = 0
    place: int | None = None
    """Score in its tenant's ready set: when it was first ready, less 30 s for each priority."""
    counted: bool = False
    """It is one of the running turns of a tenant with a cap."""
    created: int = 0
    ended: int | None = None
    begin: int | None = None
    deadline: int | None = None
    parent: str = ""
    idem: str = ""
    cancel: str = ""
    cancel_by: int | None = None
    grace: int = 0
    """What it is given to stop in, from when it is asked or claimed for that."""
    resume: str = ""
    """"routes" if it ended as a handoff to be placed: a retry goes there."""
    retried: bool = False
    felled: bool = False
    """It was stopped because its parent ended or was stopped: a retry of that sends both back."""
    pardon: int = 0
    """Fence up to which begun `once` steps are forgiven, by an operator's retry."""
    rollback_to: int = 0
    rollback_full: int = 0
    rollback_base: int = 0
    commit: str = ""
    reply: tuple[str, str, str] | None = None
    released: str = ""
    waits: str = ""
    output: str = ""
    error: str = ""
    reason: str = ""
    usage: tuple[int, int, int] = (0, 0, 0)
    seq: int = 0
    live_seq: int = 0
    live_n: int = 0
    live_batch: str = ""
    wakes: int = 0
    open: int = 0
    """Ends of sub-agents it waits for."""
    inbox_n: int = 0
    extra: dict[str, str] = field(default_factory=dict)
    inbox: dict[str, Entry] = field(default_factory=dict)
    journal: dict[str, str] = field(default_factory=dict)
    """"e:key" -> JSON of a result, "b:key" -> token of the attempt that began the step."""
    calls: dict[str, str] = field(default_factory=dict)
    """Any id of a suspended call -> its canonical id."""
    expiries: dict[str, Pending] = field(default_factory=dict)
    decided: dict[str, str] = field(default_factory=dict)
    """Call id -> inbox entry that decided it; "put:entry" -> an entry that was put, also once it is read."""
    kids: set[str] = field(default_factory=set)
    asking: dict[str, str] = field(default_factory=dict)
    """Sub-agents, however far below, that have asked something -> the way down to each."""
    events: list[Event] = field(default_factory=list)
    live: list[Delta] = field(default_factory=list)

    @property
    def is_terminal(self) -> bool:
        return self.home == ""

    @property
    def is_call(self) -> bool:
        """Say if it is a call of a tool that runs in a pool of its own."""
        return self.agent.startswith(CALL_PREFIX)

    @property
    def is_leased(self) -> bool:
        return self.home == "due" and self.token != ""

    @property
    def winds_up(self) -> bool:
        """Its agent has hooks for a run's end."""
        return self.extra.get("winds") == "1"

    @property
    def owner(self) -> tuple[str, str]:
        return self.tenant, self.thread


@dataclass(slots=True)
class Version:
    """One checkpoint of a thread: a full state, a delta, nothing new, or "as version `back_to`"."""

    version: int
    commit: str
    previous: str
    messages: int
    spans: str
    run: str
    at: int
    turn: int | None = None
    kind: str = ""
    state: str = ""
    back_to: int | None = None
    back_full: int | None = None


@dataclass(slots=True)
class Thread:
    """A durable conversation; its head is the newest of `versions`."""

    tenant: str
    id: str
    created: int = 0
    version: int = 0
    commit: str = ""
    fence: int = 0
    active: str = ""
    stored: int = 0
    spans: str = "0:"
    bytes: int = 0
    worker: str = ""
    full: int = 0
    base: int | None = None
    """The lowest version that is needed to rebuild the head, if that is not `full`; 0: from the first on."""
    since: int = 0
    idle: bool = False
    """No active run: its keys have a TTL."""
    origin: str = ""
    """Version and id of the thread it was forked from."""
    runs: dict[str, float] = field(default_factory=dict)
    """Every run of it that is still known -> when it was created."""
    messages: list[str] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    line: list[str] = field(default_factory=list)

    @property
    def lowest(self) -> int:
        return self.full if self.base is None else self.base


@dataclass(slots=True)
class Role:
    """Ready work of one role, by tenant, and the account of tickets that are out for it."""

    name: str
    ready: int = 0
    out: int = 0
    window: int = 0
    virtual: float = 0.0
    since: int = 0
    patience: int = 0
    sent: int = 0
    template: str = ""
    cap: int | None = None
    known: bool = False
    """It has an account, also if that is empty."""
    tags: dict[str, float] = field(default_factory=dict)
    """Tenants with ready runs -> start tag."""
    capped: dict[str, float] = field(default_factory=dict)
    """The same, for those at their cap of running turns."""
    fair: dict[str, float] = field(default_factory=dict)
    """Tenants without ready runs -> finish tag, while ahead of `virtual`."""
    queues: dict[str, dict[str, float]] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    """Ready runs on their last attempt; the account counts them too."""
    lasts: int = 0
    running: dict[str, int] = field(default_factory=dict)
    pool: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Partition:
    """Everything under one hash tag, and what this partition put on the broker's lists."""

    fleet: str
    number: int
    clock: int = 0
    minimum: int | None = None
    fenced: int = 0
    """Commits refused because their token was not the lease's."""
    runs: dict[str, Run] = field(default_factory=dict)
    threads: dict[tuple[str, str], Thread] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    routes: dict[str, float] = field(default_factory=dict)
    deadlines: dict[str, float] = field(default_factory=dict)
    created: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    dropped: int = 0
    """Threads deleted so far."""
    drops: dict[int, dict[str, float]] = field(default_factory=dict)
    """A deleted thread's number -> its runs that are left to forget, and when each was created."""
    gone: set[str] = field(default_factory=set, compare=False)
    """Runs forgotten a moment ago: a start that is sent again does not make them anew."""
    idem: dict[str, tuple[str, str]] = field(default_factory=dict)
    claims: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    sweeper: tuple[str, int] | None = None
    tickets: dict[str, list[str]] = field(default_factory=dict)
    """Role -> what was pushed onto its broker list, newest first."""
    bells: int = 0
    """Entries on the coordinator's list."""
    streams: dict[str, tuple[int, int, int]] = field(default_factory=dict, compare=False)
    """Run -> first and last number in its event stream, and how many."""
    whole: bool = field(default=True, compare=False)
    """Contents are in the records; False for a quick picture of a busy fleet."""
