"""What a lattice is: values that any two writers' versions join into one, whoever comes first.

    annotation GSet[str] ──lattice_of──▶ Lattice ──read──▶ value ──join──▶ value ──write──▶ JSON

Join is commutative, associative and idempotent, and keeps whatever either side knew.  A class whose
fields are all lattices is one too, joined field by field.

Source: Shapiro et al., "A comprehensive study of convergent and commutative replicated data types", 2011.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Self, get_args, get_origin, get_type_hints

import msgspec

from techrevati.agent.state.errors import LatticeUnreadable
from techrevati.agent.state.notation import Path
from techrevati.agent.state.values import Json, canonical


class LatticeValue(ABC):
    """A value of one of the seven kinds.  Methods that change it do so in place; `merge` never does."""

    __slots__ = ("actor",)

    actor: str | None
    """Who changes this value, unless a change says otherwise; never stored."""

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """Join with another version of the same value."""

    @abstractmethod
    def write(self) -> Json:
        """Give the JSON that is stored."""

    @classmethod
    @abstractmethod
    def read(cls, stored: Json, args: tuple[Any, ...]) -> Self:
        """Give the value of stored JSON; `args` are the annotation's parameters.

        Raises:
            ValueError, TypeError, msgspec.ValidationError: it is not what `write` gives.
        """

    def bind(self, actor: str) -> None:
        """Count changes from now on under `actor`."""
        self.actor = actor

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and canonical(self.write()) == canonical(other.write())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.write()!r})"


class Lattice:
    """How values of one annotation are read, joined and written."""

    __slots__ = ("args", "fields", "kind", "name")

    def __init__(self, kind: type[Any], args: tuple[Any, ...], fields: Mapping[str, "Lattice"]) -> None:
        self.kind, self.args, self.fields = kind, args, fields
        self.name = kind.__name__ + (f"[{', '.join(_name(arg) for arg in args)}]" if args else "")

    def __repr__(self) -> str:
        return f"Lattice({self.name})"

    def read(self, stored: Json) -> Any:
        """Give the value of stored JSON, None being the empty one.

        Raises:
            ValueError, TypeError, msgspec.ValidationError: it is not what the lattice writes.
        """
        if stored is None:
            return self.empty()
        if not self.fields:
            return self.kind.read(stored, self.args)
        if not isinstance(stored, dict):
            raise ValueError(f"an object is needed, found {type(stored).__name__}")
        return self.kind(**{name: lattice.read(stored.get(name)) for name, lattice in self.fields.items()})

    def empty(self) -> Any:
        if not self.fields:
            return self.kind()
        return self.kind(**{name: lattice.empty() for name, lattice in self.fields.items()})

    def join_json(self, path: Path, current: Json, delta: Json) -> Json:
        """Join two stored values; None is nothing yet.

        Raises:
            LatticeUnreadable: one of them is not what the lattice writes.
        """
        try:
            mine, theirs = self.read(current), self.read(delta)
            return write(join(mine, theirs))
        except (ValueError, TypeError, AttributeError) as error:  # msgspec.ValidationError is a ValueError
            raise LatticeUnreadable(path, self.name, str(error)) from error


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def lattice_of(annotation: Any) -> Lattice | None:
    """Give the lattice of a field's annotation, or None if it is a plain one."""
    return _lattice_of(annotation)


@lru_cache(maxsize=1024)
def _lattice_of(annotation: Any) -> Lattice | None:
    kind = get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return None
    if issubclass(kind, LatticeValue):
        return Lattice(kind, get_args(annotation), {})
    if dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct):
        names = _field_names(kind)
        hints = get_type_hints(kind)
        found = {name: lattice_of(hints[name]) for name in names}
        fields = {name: lattice for name, lattice in found.items() if lattice is not None}
        if names and len(fields) == len(names):
            return Lattice(kind, get_args(annotation), fields)
    return None


def _field_names(kind: type[Any]) -> tuple[str, ...]:
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return tuple(kind.__struct_fields__)


def join(mine: Any, theirs: Any) -> Any:
    """Join two values of one lattice into a new one; neither is changed."""
    if isinstance(mine, LatticeValue):
        if type(mine) is not type(theirs):
            raise TypeError(f"{type(mine).__name__} does not join with {type(theirs).__name__}")
        return mine.merge(theirs)
    return type(mine)(**{name: join(getattr(mine, name), getattr(theirs, name)) for name in _field_names(type(mine))})


def write(value: Any) -> Json:
    """Give the JSON of a value of any lattice."""
    if isinstance(value, LatticeValue):
        return value.write()
    return {name: write(getattr(value, name)) for name in _field_names(type(value))}


def bind(value: Any, actor: str) -> None:
    """Count changes to a value of any lattice, from now on, under `actor`."""
    if isinstance(value, LatticeValue):
        value.bind(actor)
        return
    for name in _field_names(type(value)):
        bind(getattr(value, name), actor)
