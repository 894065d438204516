"""Lattices that only grow: flag, registers, counter and set.

Source: Shapiro et al., 2011, §3.1–3.3.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Generic, Self, TypeVar

import msgspec

from techrevati.agent.state.errors import ActorNeeded
from techrevati.agent.state.lattice import LatticeValue
from techrevati.agent.state.values import Json, canonical, plain

T = TypeVar("T")

COUNT_LIMIT = (1 << 63) - 1
"""A counter's node stops here instead of passing what JSON readers can hold."""


def element(stored: Json, args: tuple[Any, ...]) -> Any:
    """Read an element of the annotated type; without one, as it is."""
    return msgspec.convert(stored, args[0]) if args else stored


class Flag(LatticeValue):
    """Off until somebody enables it, then on for good.  Stored as ``true`` or ``false``."""

    __slots__ = ("_on",)

    def __init__(self, on: bool = False) -> None:
        self.actor, self._on = None, on

    def __bool__(self) -> bool:
        return self._on

    def enable(self) -> None:
        self._on = True

    def merge(self, other: Self) -> Self:
        return type(self)(self._on or other._on)

    def write(self) -> Json:
        return self._on

    @classmethod
    def read(cls, stored: Json, args: tuple[Any, ...]) -> Self:
        return cls(msgspec.convert(stored, bool))


class _Register(LatticeValue, Generic[T]):
    """One value; of two, the one that wins by order.  Stored bare, ``null`` while there is none."""

    __slots__ = ("value",)

    def __init__(self, value: T | None = None) -> None:
        self.actor = None
        self.value: T | None = value

    def set(self, value: T) -> None:
        """Replace the value here; a join still takes the winner of both."""
        self.value = value

    def write(self) -> Json:
        return plain(self.value)

    @classmethod
    def read(cls, stored: Json, args: tuple[Any, ...]) -> Self:
        return cls(None if stored is None else element(stored, args))

    def _ordered(self, other: "_Register[T]") -> tuple["_Register[T]", "_Register[T]"]:
        """Give both, the lesser first; equal ones (``1`` and ``1.0``) stand in the order of their texts."""
        mine, theirs = self.value, other.value
        if mine == theirs:
            swap = canonical(self.write()) > canonical(other.write())
        else:
            swap = bool(theirs < mine)  # type: ignore[operator]
        return (other, self) if swap else (self, other)


class MaxReg(_Register[T]):
    """The greatest value anyone set."""

    __slots__ = ()

    def merge(self, other: Self) -> Self:
        if self.value is None or other.value is None:
            return type(self)(other.value if self.value is None else self.value)
        return type(self)(self._ordered(other)[1].value)


class MinReg(_Register[T]):
    """The least value anyone set."""

    __slots__ = ()

    def merge(self, other: Self) -> Self:
        if self.value is None or other.value is None:
            return type(self)(other.value if self.value is None else self.value)
        return type(self)(self._ordered(other)[0].value)


class GCounter(LatticeValue):
    """A count that only grows: what each actor counted, and in all.  Stored as ``{"actor": count}``."""

    __slots__ = ("_counts",)

    def __init__(self, counts: dict[str, int] | None = None) -> None:
        self.actor = None
        self._counts = dict(counts or {})

    @property
    def value(self) -> int:
        return sum(self._counts.values())

    def increment(self, delta: int = 1, *, actor: str | None = None) -> None:
        """Count `delta` under `actor`.

        Two writers that share an actor lose counts to each other: give each tool call its own.

        Raises:
            ActorNeeded: none is given and none bound.
            ValueError: `delta` is negative.
        """
        if delta < 0:
            raise ValueError(f"delta {delta} is refused: this counter only grows")
        actor = actor or self.actor
        if not actor:
            raise ActorNeeded("GCounter")
        if delta:
            self._counts[actor] = min(COUNT_LIMIT, self._counts.get(actor, 0) + delta)

    def merge(self, other: Self) -> Self:
        counts = dict(self._counts)
        for actor, count in other._counts.items():
            counts[actor] = max(counts.get(actor, 0), count)
        return type(self)(counts)

    def write(self) -> Json:
        return dict(sorted(self._counts.items()))

    @classmethod
    def read(cls, stored: Json, args: tuple[Any, ...]) -> Self:
        counts = msgspec.convert(stored, dict[str, int])
        if any(not 0 <= count <= COUNT_LIMIT for count in counts.values()):
            raise ValueError(f"counts are 0 to {COUNT_LIMIT}")
        return cls(counts)


class GSet(LatticeValue, Generic[T]):
    """A set that only grows.  Stored as a sorted array."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[T] = ()) -> None:
        self.actor = None
        self._items: dict[bytes, T] = {_text(item): item for item in items}

    def insert(self, item: T) -> bool:
        """Add an item; says whether it was new."""
        text = _text(item)
        if text in self._items:
            return False
        self._items[text] = item
        return True

    def __contains__(self, item: object) -> bool:
        return _text(item) in self._items

    def __iter__(self) -> Iterator[T]:
        return (item for _, item in sorted(self._items.items(), key=_order))

    def __len__(self) -> int:
        return len(self._items)

    def merge(self, other: Self) -> Self:
        merged = type(self)()
        merged._items = {**other._items, **self._items}
        return merged

    def write(self) -> Json:
        return [plain(item) for item in self]

    @classmethod
    def read(cls, stored: Json, args: tuple[Any, ...]) -> Self:
        if not isinstance(stored, list):
            raise ValueError(f"an array is needed, found {type(stored).__name__}")
        return cls(element(item, args) for item in stored)


def _text(item: Any) -> bytes:
    return canonical(item)


def _order(entry: tuple[bytes, Any]) -> tuple[int, Any, bytes]:
    """Numbers by size, then text by its characters, then the rest by their JSON."""
    text, item = entry
    if isinstance(item, int | float) and not isinstance(item, bool):
        return 0, item, text
    if isinstance(item, str):
        return 1, item, text
    return 2, "", text
