"""Sessions whose every turn proves the turn before it, and the verifier that believes nothing else.

    turn n: before = last link in the store ──▶ link(before, session, n) ──▶ store

A lost turn, a turn done twice or a turn on stale state breaks the chain of its session for good.
"""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

MEDIAN, P99 = 0.5, 3.0  # s, of one turn's time
SIGMA = math.log(P99 / MEDIAN) / 2.3263478740408408  # the normal's own 99th percentile
MEAN = MEDIAN * math.exp(SIGMA**2 / 2)

STARTED = "bench:started"  # list: one `Begun` per turn that began, committed or not
ENDED = "bench:ended"  # set: baseline sessions whose last turn ran
HISTORY = "bench:history:"  # prefix of a baseline session's links; ours has them in its thread


def link(before: str, session: str, number: int) -> str:
    """Give the result of one turn, which only follows from the result of the turn before."""
    return hashlib.sha256(f"{before} {session} {number}".encode()).hexdigest()[:16]


def work(session: str, number: int) -> float:
    """Seconds that one turn takes: the same in every run, and again after a crash."""
    return random.Random(f"{session} {number}").lognormvariate(math.log(MEDIAN), SIGMA)


@dataclass(frozen=True, slots=True)
class Begun:
    """A turn's body began, in this process at this instant."""

    session: str
    number: int
    pid: int
    at: float  # s, the machine's monotonic clock

    def encode(self) -> str:
        return f"{self.session} {self.number} {self.pid} {self.at:.6f}"

    @classmethod
    def decode(cls, text: str) -> "Begun":
        session, number, pid, at = text.split()
        return cls(session, int(number), int(pid), float(at))


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker process was killed."""

    pids: frozenset[int]
    at: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the store holds once every worker is dead."""

    sessions: int
    whole: int  # sessions whose chain has every link, in order
    whole_turns: int
    doubled: int  # links that stand twice in a history: a turn that committed twice
    reran: int  # turns that began again after they were committed
    restarted: int  # turns that began again because their worker died: the price of a kill


def is_whole(session: str, links: Sequence[str], turns: int) -> bool:
    """Say whether `links` is the one right chain of this session."""
    before = ""
    for number in range(1, turns + 1):
        if number > len(links) or links[number - 1] != (before := link(before, session, number)):
            return False
    return len(links) == turns


def judge(histories: dict[str, Sequence[str]], begun: Iterable[Begun], turns: int) -> Verdict:
    """Judge what is stored (`histories`: session to its links) against what was seen to begin.

    A turn is committed at the latest when its successor begins; if it begins after that, it ran again.
    """
    firsts: dict[tuple[str, int], float] = {}
    begins = sorted(begun, key=lambda one: one.at)
    for one in begins:
        firsts.setdefault((one.session, one.number), one.at)
    reran = sum(one.at > firsts.get((one.session, one.number + 1), math.inf) for one in begins)
    whole = sum(is_whole(session, links, turns) for session, links in histories.items())
    doubled = sum(sum(Counter(links).values()) - len(set(links)) for links in histories.values())
    return Verdict(len(histories), whole, whole * turns, doubled, reran, len(begins) - len(firsts) - reran)


def recoveries(kills: Iterable[Kill], begun: Iterable[Begun]) -> list[float]:
    """Seconds from each kill until the turns it interrupted began again, one figure per turn.

    A turn was interrupted if its last begin before the kill was in a killed process and the same turn
    began again later.  A turn that never began again is missing here: its session is not whole.
    """
    turns: dict[tuple[str, int], list[Begun]] = {}
    for one in sorted(begun, key=lambda one: one.at):
        turns.setdefault((one.session, one.number), []).append(one)
    waits = []
    for kill in kills:
        for begins in turns.values():
            for first, second in pairwise(begins):
                if first.pid in kill.pids and first.at <= kill.at < second.at:
                    waits.append(second.at - kill.at)
    return waits
