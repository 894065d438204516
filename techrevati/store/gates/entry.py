"""One caller on its way out of a gate: asks, waits for its start or its slot, and leaves nothing behind if it gives up.

ask ──▶ let out
 ├── promised a time ──▶ sleep until then ──▶ ask, or out
 ├── in the line for slots ──▶ listen ──▶ out │ ask again
 └── refused, or the wait is over ──▶ GateRefused
"""

from dataclasses import dataclass, field

from techrevati.store.gates.errors import GateRefused
from techrevati.store.gates.link import Link
from techrevati.store.gates.records import FOR_EVER, NONE, Ask, Verdict
from techrevati.store.gates.steps import Listen, Sleep, Steps
from techrevati.store.gates.waiting import AskAgain, Come, Out, Ticket

LOOK = 1.0
"""Seconds: who listens looks no sooner; later if its turn is further away, up to half a lease."""


@dataclass(slots=True)
class Admission:
    """A call that was let out; settle it once it has ended.

    `costs` are what was taken; `began` is monotonic seconds.  `by` says who let it out: "fleet" (Redis), "view" (the
    local view of a closed breaker), "local" or "open" (Redis did not answer).
    """

    gate: str
    call_id: str
    holder: str
    costs: dict[str, float]
    generation: int
    probe: bool
    began: float
    by: str = "fleet"
    actual: dict[str, float] = field(default_factory=dict)
    """Set what the call really cost, where it is known before it is settled."""


@dataclass(slots=True)
class Entry:
    """Who wants out; `deadline` is monotonic seconds, None: it waits as long as it takes."""

    link: Link
    costs: dict[str, float]
    call_id: str
    holder: str
    priority: int
    tenant: str
    lease_us: int
    deadline: float | None
    booking: str

    def steps(self, *, listens: bool) -> Steps[Admission]:
        if not listens:
            return (yield from self._enter(None))
        ticket, out = self.link.ear.open(self.call_id), False
        try:
            made = yield from self._enter(ticket)
            out = True
            return made
        finally:
            self.link.ear.close(ticket, let_out=out)

    def _enter(self, ticket: Ticket | None) -> Steps[Admission]:
        link = self.link
        while True:
            asked = link.monotonic()
            verdict, by = yield from self._ask(ticket)
            if verdict is None:
                return self._admission(0, by="open")
            if verdict.admitted:
                return (yield from self._start(verdict, by))
            if not self._can_wait(verdict, ticket):
                if ticket is not None and not self.booking and not verdict.booked and verdict.why != "store":
                    yield from link.cancel(self.call_id)  # it may have stood in line before
                raise self._refused(verdict)
            try:
                if ticket is None:
                    yield sleep_until(link, verdict, by)
                elif (told := (yield from self._listen(ticket, verdict, by))) is not None:
                    return (yield from self._unless_refused(self._admission(told.generation, by=by)))
                if ticket is not None and self._left_us() == 0 and verdict.why == "slots":
                    if self.booking or (yield from link.cancel(self.call_id)):
                        verdict.wait_us = max(1, verdict.wait_us - round((link.monotonic() - asked) * 1e6))
                        raise self._refused(verdict)
                    ticket.told.clear()  # it was let out just now: the answer says so
            except GeneratorExit:
                raise
            except GateRefused:
                raise
            except BaseException:
                if not self.booking:
                    yield from link.forget(self.call_id, self.holder, self.costs)
                raise

    def _left_us(self) -> int:
        return FOR_EVER if self.deadline is None else max(0, round((self.deadline - self.link.monotonic()) * 1e6))

    def _ask(self, ticket: Ticket | None) -> Steps[tuple[Verdict | None, str]]:
        link, left, asked = self.link, self._left_us(), self.link.monotonic()
        if ticket is not None:
            ticket.about_to_ask()
        ask = Ask(
            call_id=self.call_id,
            holder=self.holder,
            lease_us=self.lease_us,
            tenant=self.tenant,
            priority=self.priority,
            max_wait_us=left,
            reach_us=FOR_EVER if self.booking else left,
            booking=self.booking or (self.call_id if left else ""),
            ear="" if ticket is None else link.ear.name,
        )
        try:
            verdict, by = yield from link.talk(lambda terms: terms.admit(ask, self.costs))
        except GeneratorExit:
            raise
        except BaseException as error:
            if not isinstance(error, Exception):  # cancelled while it was asked: nobody is left to use it
                if self.booking:
                    yield from link.report(self.call_id, self.holder, generation=0, outcome=NONE, back=self.costs)
                else:
                    yield from link.forget(self.call_id, self.holder, self.costs)
            raise
        if verdict is not None and by == "fleet" and self.holder == link.worker:
            link.view.take(verdict.seen, asked)
        return verdict, by

    def _can_wait(self, verdict: Verdict, ticket: Ticket | None) -> bool:
        left = self._left_us()
        if verdict.why == "slots" and verdict.booked and ticket is not None:
            return left > 0  # how long it will take is a guess
        return 0 < verdict.wait_us <= left and verdict.why in ("rate", "ramp", "slots")

    def _refused(self, verdict: Verdict) -> GateRefused:
        seconds = None if verdict.wait_us < 0 else verdict.wait_us / 1e6
        booked = verdict.booked and bool(self.booking)
        return GateRefused(
            self.link.name, verdict.why, seconds if booked else self.link.spread(verdict.why, seconds), booked
        )

    def _admission(self, generation: int, *, by: str, probe: bool = False) -> Admission:
        now = self.link.monotonic()
        return Admission(self.link.name, self.call_id, self.holder, self.costs, generation, probe, now, by)

    def _start(self, verdict: Verdict, by: str) -> Steps[Admission]:
        """It is out, maybe from a time on that is ahead."""
        made = self._admission(verdict.seen.generation, by=by, probe=verdict.probe)
        if verdict.wait_us <= 0:
            return made
        try:
            yield sleep_until(self.link, verdict, by)
        except GeneratorExit:
            raise
        except BaseException:
            yield from self._give_back(made)
            raise
        made.began = self.link.monotonic()
        return (yield from self._unless_refused(made))

    def _unless_refused(self, made: Admission) -> Steps[Admission]:
        """Between the promise and the start it may have opened."""
        if self.holder == self.link.worker and (refused := self.link.refusal()) is not None:
            yield from self._give_back(made)
            raise refused
        return made

    def _give_back(self, made: Admission) -> Steps[None]:
        how = {"generation": made.generation, "outcome": NONE, "back": made.costs}
        yield from self.link.report(made.call_id, made.holder, by=made.by, **how)

    def _listen(self, ticket: Ticket, verdict: Verdict, by: str) -> Steps[Out | None]:
        """Wait to be let out; None: ask.

        One caller per process looks now and then: a slot whose holder died is noticed by whoever asks.
        """
        link = self.link
        now, pause = link.monotonic(), 0.0
        if verdict.why == "slots":
            pause = max(LOOK, min(2e-6 * verdict.wait_us, self.lease_us / 2e6))
            due = now + pause
        else:
            due = sleep_until(link, verdict, by).until
        while True:
            until = due if self.deadline is None else min(due, self.deadline)
            told = yield Listen(ticket, until, max(0.0, until - now))
            now = link.monotonic()
            match told:
                case Out():
                    return told
                case AskAgain():
                    return None
                case Come(wait):
                    due, pause = now + wait, 0.0
                case _ if self._left_us() == 0:
                    return None
                case _ if now >= due:
                    if pause == 0 or link.ear.has_waited_longest(ticket):
                        return None
                    due = now + pause


def sleep_until(link: Link, verdict: Verdict, by: str) -> Sleep:
    """Wait until the start that was promised.

    It is a time of the server's clock.  The least seen between its time and a reply's arrival is nearest to what
    lies between the clocks, and believed for all.  A later start never comes before an earlier one.
    """
    now, told = link.monotonic(), verdict.seen.now_us / 1e6
    if by != "fleet":
        return Sleep(now + verdict.wait_us / 1e6, verdict.wait_us / 1e6)
    start = link.clocks.ours(told, told + verdict.wait_us / 1e6, now)
    return Sleep(start, max(0.0, start - now))
