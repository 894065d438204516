"""Applying patches: a new document that shares with the old one all that did not change.

    document ──copy the containers on the way, once──▶ draft ──ops──▶ document'

Only the objects and arrays that lead to a change are copied, each once per call, and shallowly: the cost
follows the width of what is touched, not the size of the document.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, TypeAlias

from techrevati.agent.state.errors import (
    AppendRequiresArray,
    IndexOutOfBounds,
    MergeRequiresObject,
    NumericOperationOnNonNumber,
    PathNotFound,
    TypeMismatch,
)
from techrevati.agent.state.notation import Path
from techrevati.agent.state.patch import (
    Append,
    Decrement,
    Delete,
    Increment,
    Insert,
    LatticeMerge,
    MergeObject,
    Op,
    Patch,
    Remove,
    Set,
    TrackedPatch,
)
from techrevati.agent.state.registry import NO_LATTICES, LatticeRegistry
from techrevati.agent.state.values import Json, checked, kind_of, same

Document: TypeAlias = dict[str, Any]
"""The state of a thread, as JSON.  Read it, never change it in place: versions of it share their parts."""

MISSING: Any = object()
"""What `find` gives where nothing stands (None is a value)."""


def find(document: Json, path: Path, default: Any = None) -> Any:
    """Give the value at a path, or `default` where nothing stands.  Never change it in place."""
    node = document
    for key in path:
        if isinstance(key, str):
            if not isinstance(node, dict) or key not in node:
                return default
        elif not isinstance(node, list) or key >= len(node):
            return default
        node = node[key]
    return node


def apply(document: Document, patch: Patch | TrackedPatch, registry: LatticeRegistry = NO_LATTICES) -> Document:
    """Give the document with a patch applied, all of it or nothing; the one given is never changed.

    Raises:
        PatchRefused: an operation does not fit; its subclasses say why.
    """
    return apply_all(document, (patch,), registry)


def apply_all(
    document: Document, patches: Iterable[Patch | TrackedPatch], registry: LatticeRegistry = NO_LATTICES
) -> Document:
    """Apply patches in order, all or none; what they all touch is copied once."""
    draft = _Draft(document, registry)
    for patch in patches:
        for op in (patch.patch if isinstance(patch, TrackedPatch) else patch).ops:
            draft.do(op)
    return draft.document


class _Draft:
    """A document on its way to the next: containers it copied or made itself, it may change."""

    __slots__ = ("_own", "_registry", "document")

    def __init__(self, document: Document, registry: LatticeRegistry) -> None:
        self.document, self._registry = document, registry
        self._own: dict[int, Any] = {}  # by id; holding them keeps the ids from being used again

    def do(self, op: Op) -> None:
        match op:
            case Set(path=path, value=value):
                self._set(path, value)
            case Delete(path=path):
                self._delete(path)
            case Append(path=path, value=value):
                self._append(path, value)
            case MergeObject(path=path, value=value):
                self._merge_object(path, value)
            case Increment(path=path, amount=amount):
                self._add(path, amount)
            case Decrement(path=path, amount=amount):
                self._add(path, -amount)
            case Insert(path=path, value=value, index=index):
                self._insert(path, value, index)
            case Remove(path=path, value=value):
                self._remove(path, value)
            case LatticeMerge(path=path, value=value):
                self._join(path, value)

    def _owned(self, container: Any) -> Any:
        if id(container) in self._own:
            return container
        copy = container.copy()
        self._own[id(copy)] = copy
        return copy

    def _new(self) -> dict[str, Any]:
        return self._owned({})  # type: ignore[no-any-return]

    def _parent(self, path: Path) -> Any:
        """Make the container that holds `path` ours, with those on the way, as `set` needs them."""
        node = self.document = self._owned(self.document)
        if isinstance(path[0], int):
            raise TypeMismatch((), "an array", "an object")
        for depth, (key, below) in enumerate(pairwise(path), start=1):
            child = self._child(node, key, path[: depth - 1])
            if isinstance(below, str):
                child = self._owned(child) if isinstance(child, dict) else self._new()
            elif isinstance(child, list):
                child = self._owned(child)
            else:
                raise TypeMismatch(path[:depth], "an array", "absent" if child is MISSING else kind_of(child))
            node[key] = child
            node = child
        return node

    @staticmethod
    def _child(node: Any, key: str | int, at: Path) -> Any:
        if isinstance(key, str):
            return node.get(key, MISSING)
        if key >= len(node):
            raise IndexOutOfBounds(at, key, len(node))
        return node[key]

    def _set(self, path: Path, value: Json) -> None:
        if not path:
            self.document = value
            return
        parent = self._parent(path)
        self._child(parent, path[-1], path[:-1])
        parent[path[-1]] = value

    def _list(self, path: Path) -> list[Any]:
        """Make the array at `path` ours; it stands there already."""
        parent = self._parent(path)
        found: list[Any] = self._owned(parent[path[-1]])
        parent[path[-1]] = found
        return found

    def _delete(self, path: Path) -> None:
        if find(self.document, path, MISSING) is MISSING:
            return
        if not path:
            self.document = self._new()
            return
        del self._parent(path)[path[-1]]

    def _append(self, path: Path, value: Json) -> None:
        found = find(self.document, path, MISSING)
        if found is MISSING:
            self._set(path, [value])
        elif isinstance(found, list):
            self._list(path).append(value)
        else:
            raise AppendRequiresArray(path, kind_of(found))

    def _merge_object(self, path: Path, value: dict[str, Json]) -> None:
        found = find(self.document, path, MISSING)
        if found is MISSING:
            self._set(path, value)
        elif not isinstance(found, dict):
            raise MergeRequiresObject(path, kind_of(found))
        elif not path:
            self.document = self._owned(self.document)
            self.document.update(value)
        else:
            parent = self._parent(path)
            merged = parent[path[-1]] = self._owned(found)
            merged.update(value)

    def _add(self, path: Path, amount: float) -> None:
        found = find(self.document, path, MISSING)
        if found is MISSING:
            raise PathNotFound(path)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise NumericOperationOnNonNumber(path, kind_of(found))
        self._set(path, checked(found + amount, path))

    def _insert(self, path: Path, value: Json, index: int) -> None:
        found = self._array(path)
        if index > len(found):
            raise IndexOutOfBounds(path, index, len(found))
        self._list(path).insert(index, value)

    def _remove(self, path: Path, value: Json) -> None:
        for index, item in enumerate(self._array(path)):
            if same(item, value):
                del self._list(path)[index]
                return

    def _array(self, path: Path) -> list[Any]:
        found = find(self.document, path, MISSING)
        if found is MISSING:
            raise PathNotFound(path)
        if not isinstance(found, list):
            raise TypeMismatch(path, "an array", kind_of(found))
        return found

    def _join(self, path: Path, value: Json) -> None:
        lattice = self._registry.at(path)
        if lattice is not None:
            value = lattice.join_json(path, find(self.document, path, None), value)
        self._set(path, value)
