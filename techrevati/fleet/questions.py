"""What a run and its sub-agents ask: every suspended call of a tree that nobody has decided yet.

run, asking:{t}:<run> ──▶ calls that wait ──less what is decided──▶ [Question]
"""

from dataclasses import dataclass
from typing import Any

from techrevati.fleet.asking import Plan
from techrevati.fleet.listing import record_of
from techrevati.store.errors import RunNotFound
from techrevati.store.keys import PartitionKeys
from techrevati.store.records import decode_json, pairs


@dataclass(frozen=True, slots=True)
class Question:
    """One call that waits for a decision.

    Attributes:
        id: What `decide` takes, from the run that was asked for its questions.
        call_id: The call's own id, in the run that asks.
        path: Run ids from below the run that was looked at down to the one that asks; () if it is that run itself.
        payload: What the agent gave with the call.
        expires: When its default is decided, in seconds since the epoch; None is never.
    """

    id: str
    call_id: str
    run_id: str
    agent: str
    path: tuple[str, ...] = ()
    payload: Any = None
    expires: float | None = None


def reading_questions(keys: PartitionKeys, run_id: str) -> Plan[list[Question]]:
    """Read what a run and those below it ask, its own first, then by the way down.

    Raises:
        RunNotFound.
    """
    (below,) = yield [("HGETALL", keys.asking(run_id))]
    ways: dict[str, tuple[str, ...]] = {run_id: ()}
    ways |= {child: tuple(way.split()) for child, way in sorted(pairs(below).items(), key=lambda one: one[1])}
    asking = list(ways)
    replies = yield [
        command for one in asking for command in (("HGETALL", keys.run(one)), ("HGETALL", keys.calls(one)))
    ]
    found = list[Question]()
    for one, flat, calls in zip(asking, replies[::2], replies[1::2], strict=True):
        record = record_of(one, flat)
        if record is None:
            if one == run_id:
                raise RunNotFound(run_id)
            continue
        if record.status.is_terminal:
            continue
        known = pairs(calls)
        waits = decode_json(pairs(flat).get("waits") or "[]")
        payloads = {call["call_id"]: call.get("payload") for call in waits if "call_id" in call}
        for call_id in dict.fromkeys(value for name, value in known.items() if name.startswith("id:")):
            expires = known.get(f"exp:{call_id}", "").partition(" ")[0]
            found.append(
                Question(
                    call_id if one == run_id else f"{one}/{call_id}",
                    call_id,
                    one,
                    record.agent,
                    ways[one],
                    payloads.get(call_id),
                    int(expires) / 1e6 if expires else None,
                )
            )
    if not found:
        return []
    decided = yield [("HEXISTS", keys.decided(question.run_id), question.call_id) for question in found]
    return [question for question, over in zip(found, decided, strict=True) if not over]
