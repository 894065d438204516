"""A claim rides on a commit: two scripts of one role and partition, in one batch, are sent as one.

    turn_commit(run a) ─┐
    run_claim(role)    ─┴▶ turn_commit(run a, next claim) ─▶ two answers

Redis reads the clock, the role's account and the fairness queues once instead of twice: a third less of its time
for a turn (decision 0008).  Which claim meets which commit does not matter: any of them takes the fairest run.
"""

from collections.abc import Sequence
from typing import Any

from techrevati.store.calls import Arg, Call

CROWD = 8
_CLAIM_ID = 13  # of a commit's arguments; the four that say how to claim follow
_OWN = 18


def pairs(batch: Sequence[Call[Any] | None]) -> dict[int, int]:
    """Match the commits of a batch with claims: index of the commit -> index of the claim."""
    found: dict[int, int] = {}
    alone: dict[tuple[str, str, str], list[int]] = {}
    for index, call in enumerate(batch):
        if call is None or not call.role:
            continue
        clock, claims = call.keys.clock, call.script == "run_claim"
        other = alone.get((clock, call.role, "turn_commit" if claims else "run_claim"))
        if other:
            met = other.pop()
            found[met if claims else index] = index if claims else met
        else:
            alone.setdefault((clock, call.role, call.script), []).append(index)
    return found


def lonely(batch: Sequence[Call[Any] | None], met: dict[int, int]) -> list[int]:
    """Give the claims to keep for the next batch: the later half of a crowd that has nothing to ride on.

    Tickets come in waves, and a wave of claims is followed by the wave of its turns' commits.  Split, the second half
    of the claims goes with the commits of the first.
    """
    riders = met.values()
    alone = [i for i, call in enumerate(batch) if call and call.script == "run_claim" and i not in riders]
    return alone[len(alone) // 2 :] if len(alone) >= CROWD else []


def together(commit: Call[Any], claim: Call[Any]) -> Call[Any]:
    """Build the one call; `answers` takes its reply apart."""
    _, claim_id, _, *how = claim.args
    args: list[Arg] = [*commit.args[:_CLAIM_ID], claim_id, *how, *commit.args[_OWN:]]
    return Call(commit.script, commit.keys, args, commit.parse)


def answers(reply: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any] | None]:
    """Give the commit's reply and the claim's; None: the commit was refused, so nothing was claimed."""
    if reply[0] < 0:
        return reply, None
    *own, grant = reply
    return [*own, 0], [1, [], grant] if isinstance(grant, list) else [0, [], grant]
