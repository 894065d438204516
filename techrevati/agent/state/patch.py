"""Operations on a document, and patches: several of them, applied as one or not at all.

    {"op": "set", "path": ["user", "name"], "value": "Alice"}

Values are checked and copied when an operation is made, so a patch never changes afterwards.
"""

from collections.abc import Iterable
from typing import ClassVar

import msgspec
from msgspec.structs import force_setattr

from techrevati.agent.state.errors import BadPath, BadValue
from techrevati.agent.state.notation import Path
from techrevati.agent.state.paths import as_path, is_prefix
from techrevati.agent.state.values import Json, checked, kind_of


class _Op(msgspec.Struct, frozen=True, tag_field="op", forbid_unknown_fields=True):
    path: Path

    def __post_init__(self) -> None:
        force_setattr(self, "path", as_path(self.path))


class _ValueOp(_Op, frozen=True):
    value: Json

    def __post_init__(self) -> None:
        super().__post_init__()
        force_setattr(self, "value", checked(self.value, self.path))


class Set(_ValueOp, frozen=True, tag="set"):
    """Put a value, making the objects on the way; what stands there and on the way, and is no object, is replaced."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path and not isinstance(self.value, dict):
            raise BadValue((), f"{kind_of(self.value)}, and the whole document is an object")


class Delete(_Op, frozen=True, tag="delete"):
    """Take a value away; later items of an array move up.  Nothing there: nothing happens."""


class Append(_ValueOp, frozen=True, tag="append"):
    """Add a value at the end of an array, which is made if absent."""


class MergeObject(_ValueOp, frozen=True, tag="merge_object"):
    """Set the keys of an object in another, which is made if absent; values within are replaced, not merged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.value, dict):
            raise BadValue(self.path, f"{kind_of(self.value)}, and merge_object takes an object")


class _AmountOp(_Op, frozen=True):
    amount: int | float = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.amount, bool) or not isinstance(self.amount, int | float):
            raise BadValue(self.path, f"{self.amount!r}, and an amount is a number")
        checked(self.amount, self.path)


class Increment(_AmountOp, frozen=True, tag="increment"):
    """Add to the number that stands there."""


class Decrement(_AmountOp, frozen=True, tag="decrement"):
    """Take from the number that stands there."""


class Insert(_ValueOp, frozen=True, tag="insert"):
    """Put a value into an array before `index`; later items move down."""

    index: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.index, bool) or not isinstance(self.index, int) or self.index < 0:
            raise BadPath((*self.path, self.index), "an index from 0")


class Remove(_ValueOp, frozen=True, tag="remove"):
    """Take the first equal item out of an array.  None equal: nothing happens."""


class LatticeMerge(_ValueOp, frozen=True, tag="lattice_merge"):
    """Join a value with what stands there, by the lattice registered for the path; with none: `Set`."""


Op = Set | Delete | Append | MergeObject | Increment | Decrement | Insert | Remove | LatticeMerge


class Patch(msgspec.Struct, frozen=True):
    """Operations in order, applied as one."""

    ops: tuple[Op, ...] = ()

    EMPTY: ClassVar["Patch"]

    def __bool__(self) -> bool:
        return bool(self.ops)

    def __add__(self, other: "Patch") -> "Patch":
        return Patch((*self.ops, *other.ops))

    def canonicalize(self) -> "Patch":
        """Drop what a later operation of the patch undoes; the rest keeps its order and its effect."""
        return Patch(_needed(self.ops))


Patch.EMPTY = Patch()


class TrackedPatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A patch, and where it came from: `source` as in ``tool:search``, `timestamp` in unix ms."""

    patch: Patch
    id: str | None = None
    source: str | None = None
    description: str | None = None
    timestamp: int | None = None


def _plain(path: Path) -> bool:
    return all(isinstance(key, str) for key in path)


def _apart(one: Path, other: Path) -> bool:
    """Say whether operations at both are sure not to see each other: they part at two object keys."""
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            return isinstance(mine, str) and isinstance(theirs, str)
    return False


def _undoes(later: Op, earlier: Op) -> bool:
    if not is_prefix(later.path, earlier.path):
        return False
    if isinstance(later, Set):
        return True
    # A set leaves the objects it made on the way, which only a deletion at the top takes along.
    return isinstance(later, Delete) and (isinstance(earlier, Delete) or len(later.path) <= 1)


def _superseded(op: Op, later: Iterable[Op]) -> bool:
    if not isinstance(op, Set | Delete) or not op.path or not _plain(op.path):
        return False  # an index may be out of bounds, or shift others: such an operation has more than one effect
    for other in later:
        if _plain(other.path) and _undoes(other, op):
            return True
        if not _apart(op.path, other.path):
            return False
    return False


def _needed(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    """From the last to the first, so that each is held against what is kept of those after it."""
    kept: list[Op] = []
    for op in reversed(ops):
        if not _superseded(op, reversed(kept)):
            kept.append(op)
    return tuple(reversed(kept))
