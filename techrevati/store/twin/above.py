"""Above: what those who sent a run out are told of it; what it asks may be answered through any of them.

    child asks ─▶ child.asked in the stream of each run above it ─▶ a decision put to any of those is handed down

Twin: ``lua/_above.lua``.
"""

from techrevati.store.twin.records import Delta, Run
from techrevati.store.twin.unit import Refused, Unit

MOST = 32
"""Levels above a run that hear of it."""
LOOKED = 128
"""Runs that a decision without a run's name is looked for in."""


def above(u: Unit, run: Run) -> list[tuple[Run, str]]:
    """Give who stands above a run, the nearest first, each with the way from there down to it."""
    found, way, up = list[tuple[Run, str]](), run.id, u.p.runs.get(run.parent)
    while up is not None and len(found) < MOST:
        found.append((up, way))
        way, up = f"{up.id} {way}", u.p.runs.get(up.parent)
    return found


def tell_turn(u: Unit, run: Run, turn: int, move: str) -> None:
    """Show a sub-agent's turn to whoever follows a parent that waits for it now; it is kept nowhere."""
    up = u.p.runs.get(run.parent)
    if up is None or run.is_call or up.home != "due" or up.token or up.why != "child":
        return
    up.live_n = up.live_n + 1 if up.live_seq == up.seq else 1
    up.live_seq = up.seq
    body = f'{{"child":"{run.id}","turn":{turn},"move":"{move}"}}'
    up.live.append(Delta(up.seq, up.live_n, "child.turn", 1, body))


def asks(u: Unit, run: Run, calls: str) -> None:
    """Tell everyone above that a run has begun to wait for answers."""
    for up, way in above(u, run):
        if not up.is_terminal:
            up.asking[run.id] = way
            said = {"child": run.id, "agent": run.agent, "path": way, "data": f'{{"calls":{calls}}}'}
            u.event(up, "-", "child.asked", **said)


def was_decided(u: Unit, run: Run, call_id: str, **more: str) -> None:
    u.event(run, "-", "call.decided", call_id=call_id, **more)
    for up, _ in above(u, run):
        if not up.is_terminal and run.id in up.asking:
            u.event(up, "-", "child.decided", child=run.id, call_id=call_id, **more)


def asks_no_more(u: Unit, run: Run) -> None:
    """A run is over: it asks nothing any more, and nobody is asked through it."""
    for up, _ in above(u, run):
        up.asking.pop(run.id, None)
    run.asking = {}


def asker(u: Unit, run: Run, name: str) -> tuple[Run, str]:
    """Find who below a run asks a call, named by any of its ids, or as "<run>/<id>" where several ask the same.

    Raises:
        Refused: -6 nobody does, -7 it is decided, -13 several do, -5 the one named is not asking.
    """
    to, slash, inner = name.partition("/")
    if slash and inner and (of := u.p.runs.get(to)) is not None:
        if to in run.asking:
            return of, inner
        if any(up is run for up, _ in above(u, of)):
            raise Refused(-7 if inner in of.decided else -5)
    if len(run.asking) > LOOKED:
        raise Refused(-13)
    below = [u.p.runs[run_id] for run_id in run.asking if run_id in u.p.runs and name in u.p.runs[run_id].calls]
    undecided = [one for one in below if one.calls[name] not in one.decided]
    if len(undecided) > 1:
        raise Refused(-13)
    if not undecided:
        raise Refused(-7 if below else -6)
    return undecided[0], name
