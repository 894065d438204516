"""From actions to patches: each action meets the document the one before it left.

document ──read──▶ state ──reduce(action)──▶ state' ──differing fields──▶ patch ──apply──▶ document' ─▶ next
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from techrevati.agent.state.document import MISSING, Document, apply, find
from techrevati.agent.state.errors import ReduceFailed, StateError
from techrevati.agent.state.notation import Path
from techrevati.agent.state.patch import Delete, LatticeMerge, Op, Patch, Set
from techrevati.agent.state.registry import NO_LATTICES, LatticeRegistry
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.state.values import Json, same


class Reduced(NamedTuple):
    """What actions made of a document; `patch` leads from the one to the other."""

    document: Document
    patch: Patch


def reduce_actions(
    document: Document,
    actions: Iterable[AnyStateAction],
    *,
    actor: str = "",
    registry: LatticeRegistry = NO_LATTICES,
) -> Reduced:
    """Reduce actions in order, each seeing what those before it did.

    Args:
        actor: Who acts, for actions that do not say: one of its own per tool call, so that counts and adds
            of calls that run at the same time do not stand for each other.

    Raises:
        ReduceFailed: a state class raised.
        StateUnreadable, BadAction, BadValue, PatchRefused: as they say.  Nothing is applied then.
    """
    ops: list[Op] = []
    for action in actions:
        found = Patch(tuple(_reduce_one(document, action.by(actor))))
        document = apply(document, found, registry)
        ops.extend(found.ops)
    return Reduced(document, Patch(tuple(ops)))


def _reduce_one(document: Document, action: AnyStateAction) -> Iterator[Op]:
    path, spec = action.path, action.spec
    stored = find(document, path, None)
    state = spec.read(stored, path)
    before = state.write()
    if action.actor:
        state.bind(action.actor)
    try:
        state.reduce(action.action())
    except StateError:
        raise
    except Exception as error:
        raise ReduceFailed(spec.__name__, path, repr(error)) from error
    after = state.write()
    if stored is None and not spec.LATTICE_FIELDS:
        yield Set(path, after)  # the whole value, so that what stayed at its default can be read too
        return
    yield from _differences(path, before, after, spec.LATTICE_FIELDS)


def _differences(
    path: Path, before: Mapping[str, Json], after: Mapping[str, Json], lattices: Mapping[str, Any]
) -> Iterator[Op]:
    for name in (*after, *(gone for gone in before if gone not in after)):
        old, new = before.get(name, MISSING), after.get(name, MISSING)
        where = (*path, name)
        if new is MISSING:
            yield Delete(where)
        elif old is not MISSING and same(old, new):
            continue
        elif name in lattices:
            yield LatticeMerge(where, new)
        else:
            yield Set(where, new)
