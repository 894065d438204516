"""Which patches of a batch cannot both be applied: they touch one place, or one touches what holds the other.

Only joins at a registered path may meet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from techrevati.agent.state.errors import PatchesConflict
from techrevati.agent.state.notation import Path
from techrevati.agent.state.patch import Delete, LatticeMerge, Op, Patch, TrackedPatch
from techrevati.agent.state.registry import NO_LATTICES, LatticeRegistry


class ConflictKind(StrEnum):
    EXACT_MATCH = "ExactMatch"
    PREFIX_CONFLICT = "PrefixConflict"


@dataclass(frozen=True, slots=True, order=True)
class Conflict:
    """Two patches of a batch, by their places in it, and where they meet: of two paths, the shorter."""

    first: int
    second: int
    path: Path
    kind: ConflictKind


_Found = tuple[int, int, Path, ConflictKind]


@dataclass(slots=True)
class _Touch:
    """How one patch touches one path."""

    patch: int
    path: Path
    joins_only: bool


def conflicts(patches: Sequence[Patch | TrackedPatch], registry: LatticeRegistry = NO_LATTICES) -> list[Conflict]:
    """Give every conflict between two patches, each pair and path once, in order.

    Two that take one place for an object and for an array conflict there too: each would refuse or replace
    what the other made.
    """
    touches = [touch for index, patch in enumerate(patches) for touch in _touches(index, patch)]
    found = {*_overlaps(touches, registry), *_disagreements(touches)}
    return [Conflict(*entry) for entry in sorted(found, key=_order)]


def _overlaps(touches: Sequence[_Touch], registry: LatticeRegistry) -> Iterator[_Found]:
    by_path: dict[Path, list[_Touch]] = {}
    for touch in touches:
        by_path.setdefault(touch.path, []).append(touch)
    for touch in touches:
        for length in range(len(touch.path) + 1):
            above = touch.path[:length]
            kind = ConflictKind.EXACT_MATCH if length == len(touch.path) else ConflictKind.PREFIX_CONFLICT
            for other in by_path.get(above, ()):
                if other.patch != touch.patch and not _may_meet(touch, other, registry):
                    yield (*_pair(touch, other), above, kind)


def _disagreements(touches: Sequence[_Touch]) -> Iterator[_Found]:
    below: dict[Path, dict[type, list[_Touch]]] = {}
    for touch in touches:
        for length, key in enumerate(touch.path):
            below.setdefault(touch.path[:length], {}).setdefault(type(key), []).append(touch)
    for path, kinds in below.items():
        for one, other in product(kinds.get(str, ()), kinds.get(int, ())):
            if one.patch != other.patch:
                yield (*_pair(one, other), path, ConflictKind.PREFIX_CONFLICT)


def _pair(one: _Touch, other: _Touch) -> tuple[int, int]:
    return min(one.patch, other.patch), max(one.patch, other.patch)


def check_batch(patches: Sequence[Patch | TrackedPatch], registry: LatticeRegistry = NO_LATTICES) -> None:
    """See that patches made side by side can all be applied.

    Raises:
        PatchesConflict: naming the first two that cannot.
    """
    for conflict in conflicts(patches, registry):
        raise PatchesConflict(conflict.first, conflict.second, conflict.path, conflict.kind)


def refusals(
    patches: Sequence[Patch | TrackedPatch], registry: LatticeRegistry = NO_LATTICES
) -> tuple[Conflict | None, ...]:
    """Decide which patches of a batch stay when the earlier of two that conflict goes first.

    Gives for each patch None, or its conflict with an earlier one that stays: what stays does not conflict.
    """
    refused: dict[int, Conflict] = {}
    for conflict in sorted(conflicts(patches, registry), key=lambda found: found.second):
        if conflict.first not in refused:
            refused.setdefault(conflict.second, conflict)
    return tuple(refused.get(index) for index in range(len(patches)))


def _order(entry: _Found) -> tuple[int, int, tuple[str, ...], str]:
    first, second, path, kind = entry
    return first, second, tuple(map(str, path)), kind


def _may_meet(one: _Touch, other: _Touch, registry: LatticeRegistry) -> bool:
    return one.path == other.path and one.joins_only and other.joins_only and registry.at(one.path) is not None


def _touches(index: int, patch: Patch | TrackedPatch) -> Iterator[_Touch]:
    found: dict[Path, _Touch] = {}
    for op in (patch.patch if isinstance(patch, TrackedPatch) else patch).ops:
        path = _footprint(op)
        touch = found.setdefault(path, _Touch(index, path, True))
        touch.joins_only = touch.joins_only and isinstance(op, LatticeMerge)
    yield from found.values()


def _footprint(op: Op) -> Path:
    """Give the place an operation changes: one that moves the items of an array changes the array."""
    if isinstance(op, Delete) and op.path and isinstance(op.path[-1], int):
        return op.path[:-1]
    return op.path
