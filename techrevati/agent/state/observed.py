"""Lattices that also shrink: a removal takes what it saw, and an add it did not see survives.

Each add of a key gets a tag that nobody else can give: the actor, and how often that actor added the key.
A removal remembers the tags it saw.  A key is present while it has a tag that no removal saw.  So "add
wins" needs no clocks that agree.

    {"entries": {"x": {"call-2": 1}}, "tombstones": {"x": {"call-1": 1}}}    x was removed, and added again

Source: Bieniusa et al., "An optimized conflict-free replicated set", 2012: of an actor's tags for one key
only the last is kept, here on both sides.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar

import msgspec

from techrevati.agent.state.errors import ActorNeeded
from techrevati.agent.state.lattice import LatticeValue, bind, join, lattice_of, write
from techrevati.agent.state.values import Json, canonical

K = TypeVar("K")
V = TypeVar("V")

Tags = dict[str, int]
"""Actor -> its last add that is known here."""

_key = msgspec.json.Decoder().decode


def _later(mine: Mapping[str, Tags], theirs: Mapping[str, Tags]) -> dict[str, Tags]:
    merged = {key: dict(tags) for key, tags in mine.items()}
    for key, tags in theirs.items():
        known = merged.setdefault(key, {})
        for actor, count in tags.items():
            known[actor] = max(known.get(actor, 0), count)
    return merged


def _written(tags: Mapping[str, Tags]) -> dict[str, Tags]:
    return {key: dict(sorted(found.items())) for key, found in sorted(tags.items())}


class _Presence:
    """Which keys are present, by the tags of adds and of removals."""

    __slots__ = ("adds", "removals")

    def __init__(self, adds: Mapping[str, Tags] | None = None, removals: Mapping[str, Tags] | None = None) -> None:
        self.adds, self.removals = dict(adds or {}), dict(removals or {})

    def has(self, key: str) -> bool:
        gone = self.removals.get(key, {})
        return any(count > gone.get(actor, 0) for actor, count in self.adds.get(key, {}).items())

    def add(self, key: str, actor: str | None, lattice: str) -> None:
        if not actor:
            raise ActorNeeded(lattice)
        tags, gone = self.adds.setdefault(key, {}), self.removals.get(key, {})
        tags[actor] = max(tags.get(actor, 0), gone.get(actor, 0)) + 1

    def remove(self, key: str) -> bool:
        if not self.has(key):
            return False
        self.removals = _later(self.removals, {key: self.adds[key]})
        return True

    def merge(self, other: "_Presence") -> "_Presence":
        return _Presence(_later(self.adds, other.adds), _later(self.removals, other.removals))


def _parts(stored: Json) -> tuple[dict[str, Any], dict[str, Tags]]:
    if not isinstance(stored, dict) or not stored.keys() <= {"entries", "tombstones"}:
        raise ValueError('an object of "entries" and "tombstones" is needed')
    return msgspec.convert(stored.get("entries", {}), dict[str, Any]), _tags(stored.get("tombstones", {}))


def _tags(stored: Json) -> dict[str, Tags]:
    tags = msgspec.convert(stored, dict[str, Tags])
    if any(count < 1 for found in tags.values() for count in found.values()):
        raise ValueError("tags count from 1")
    return tags


def _encode_key(key: Any) -> str:
    return key if isinstance(key, str) else canonical(key).decode()


def _decode_key(text: str, kind: Any) -> Any:
    if kind is str:
        return text
    return msgspec.convert(_key(text), kind)


class ORSet(LatticeValue, Generic[K]):
    """A set to add to and remove from; an add wins over a removal that did not see it.

    Elements are str, unless the annotation says otherwise (``ORSet[int]``): others are stored as the JSON
    text of the element.
    """

    __slots__ = ("_items", "_presence")

    def __init__(self, items: Iterable[K] = (), *, actor: str | None = None) -> None:
        self.actor = actor
        self._presence = _Presence()
        self._items: dict[str, K] = {}
        for item in items:
            self.insert(item)

    def insert(self, item: K, *, actor: str | None = None) -> bool:
        """Add an element, seen or not; says whether it was absent.

        Raises:
            ActorNeeded: no actor is given and none bound.
        """
        key = _encode_key(item)
        absent = not self._presence.has(key)
        self._presence.add(key, actor or self.actor, "ORSet")
        self._items[key] = item
        return absent

    def remove(self, item: K) -> bool:
        """Take an element out, by every add seen here; says whether it was there."""
        return self._presence.remove(_encode_key(item))

    def __contains__(self, item: object) -> bool:
        return self._presence.has(_encode_key(item))

    def __iter__(self) -> Iterator[K]:
        return (item for key, item in sorted(self._items.items()) if self._presence.has(key))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def merge(self, other: Self) -> Self:
        merged = type(self)()
        merged._presence = self._presence.merge(other._presence)
        merged._items = {**other._items, **self._items}
        return merged

    def write(self) -> Json:
        return {"entries": _written(self._presence.adds), "tombstones": _written(self._presence.removals)}

    @classmethod
    def read(cls, stored: Json, args: tuple[Any, ...]) -> Self:
        entries, tombstones = _parts(stored)
        kind = args[0] if args else str
        value = cls()
        value._presence = _Presence(_tags(entries), tombstones)
        value._items = {key: _decode_key(key, kind) for key in entries}
        return value


class ORMap(LatticeValue, Generic[K, V]):
    """A map whose keys come and go as in `ORSet`, and whose values are lattices that join.

    A removed key keeps its value for joins to come.  Read from an annotation (``ORMap[str, GCounter]``).
    """

    __slots__ = ("_keys", "_presence", "_values")

    def __init__(self, *, actor: str | None = None) -> None:
        self.actor = actor
        self._presence = _Presence()
        self._keys: dict[str, K] = {}
        self._values: dict[str, V] = {}

    def bind(self, actor: str) -> None:
        self.actor = actor
        for value in self._values.values():
            bind(value, actor)

    def put(self, key: K, value: V, *, actor: str | None = None) -> None:
        """Make a key present, its value joined with what was ever kept there.

        Raises:
            ActorNeeded: no actor is given and none bound.
            TypeError: `value` is no lattice.
        """
        if lattice_of(type(value)) is None:
            raise TypeError(f"{type(value).__name__} is no lattice, and the values of an ORMap join")
        text, actor = _encode_key(key), actor or self.actor
        known = self._values.get(text)
        joined = join(value, value) if known is None else join(known, value)
        self._presence.add(text, actor, "ORMap")
        bind(joined, actor or "")
        self._keys[text], self._values[text] = key, joined

    def remove(self, key: K) -> bool:
        """Take a key out, by every put seen here; says whether it was there."""
        return self._presence.remove(_encode_key(key))

    def get(self, key: K) -> V | None:
        """Give the value of a key that is present: change it in place, and the map has changed."""
        text = _encode_key(key)
        return self._values[text] if self._presence.has(text) else None

    def keys(self) -> list[K]:
        return [key for text, key in sorted(self._keys.items()) if self._presence.has(text)]

    def __contains__(self, key: object) -> bool:
        return self._presence.has(_encode_key(key))

    def __len__(self) -> int:
        return len(self.keys())

    def merge(self, other: Self) -> Self:
        merged = type(self)()
        merged._presence = self._presence.merge(other._presence)
        merged._keys = {**other._keys, **self._keys}
        for text in merged._keys:
            mine, theirs = self._values.get(text), other._values.get(text)
            # Joined with itself where the other side has none: a copy, so that no two maps share a value.
            merged._values[text] = join(
                theirs if mine is None else mine,
                mine if theirs is None else theirs,
            )
        return merged

    def write(self) -> Json:
        entries = {
            text: {"value": write(self._values[text]), "tags": dict(sorted(tags.items()))}
            for text, tags in sorted(self._presence.adds.items())
        }
        return {"entries": entries, "tombstones": _written(self._presence.removals)}

    @classmethod
    def read(cls, stored: Json, args: tuple[Any, ...]) -> Self:
        entries, tombstones = _parts(stored)
        if len(args) != 2 or (lattice := lattice_of(args[1])) is None:
            raise TypeError("an ORMap is annotated with its key and its lattice, as ORMap[str, GCounter]")
        if any(not isinstance(entry, dict) or not entry.keys() >= {"value", "tags"} for entry in entries.values()):
            raise ValueError('an entry is an object of "value" and "tags"')
        value = cls()
        value._presence = _Presence(_tags({text: entry["tags"] for text, entry in entries.items()}), tombstones)
        value._keys = {text: _decode_key(text, args[0]) for text in entries}
        value._values = {text: lattice.read(entry["value"]) for text, entry in entries.items()}
        return value
