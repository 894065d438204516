"""What a set of typed states brings to an agent: places to join, lifetimes, and how to read logged actions."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from techrevati.agent.state.document import MISSING, Document, apply, find
from techrevati.agent.state.errors import BadAction, NameTaken, UnknownState
from techrevati.agent.state.patch import Patch, Set
from techrevati.agent.state.paths import TOOL_CALL_SCOPE, as_path
from techrevati.agent.state.reduction import Reduced, reduce_actions
from techrevati.agent.state.registry import ANY_KEY, LatticeRegistry
from techrevati.agent.state.scope import ScopeRegistry, StateScope
from techrevati.agent.state.spec import AnyStateAction, StateSpec


class ActionRegistry:
    """The state classes by the names the intent log knows them by."""

    __slots__ = ("_specs",)

    def __init__(self) -> None:
        self._specs: dict[str, type[StateSpec]] = {}

    def register(self, spec: type[StateSpec]) -> None:
        """Know a class by its `NAME`.

        Raises:
            NameTaken: another class has it.
        """
        spec.check()
        if self._specs.setdefault(spec.NAME, spec) is not spec:
            raise NameTaken(spec.NAME)

    def read(self, entry: Mapping[str, Any]) -> AnyStateAction:
        """Give the action of an entry of the intent log.

        Raises:
            UnknownState: its class is not registered.
            BadAction: the entry, or its payload, is not what `AnyStateAction.entry` gives.
        """
        try:
            known = msgspec.convert(entry, _Entry)
        except ValueError as error:
            raise BadAction(str(entry.get("state_type_name", "?")), str(error)) from error
        spec = self._specs.get(known.state_type_name)
        if spec is None:
            raise UnknownState(known.state_type_name, sorted(self._specs))
        if known.scope is not spec.SCOPE or (spec.SCOPE is StateScope.TOOL_CALL) is (known.call_id_override is None):
            raise BadAction(spec.__name__, f"it was logged for the scope {known.scope}, and the class has {spec.SCOPE}")
        action = AnyStateAction(spec, as_path(known.base_path), known.payload, known.call_id_override, known.actor)
        action.action()
        return action


class _Entry(msgspec.Struct):
    state_type_name: str
    base_path: list[str | int]
    scope: StateScope
    payload: Any
    call_id_override: str | None = None
    actor: str | None = None


class StateRegistry:
    """Everything a run must know about the typed states of its agent."""

    __slots__ = ("_binding", "actions", "lattices", "scopes")

    def __init__(self, specs: Iterable[type[StateSpec]] = ()) -> None:
        self.lattices, self.scopes, self.actions = LatticeRegistry(), ScopeRegistry(), ActionRegistry()
        self._binding: dict[tuple[Any, ...], None] = {}
        for spec in specs:
            self.register(spec)

    def replay(self, document: Document, entries: Iterable[Mapping[str, Any]]) -> Reduced:
        """Reduce an intent log onto a document, each intent as its class now understands it.

        Raises:
            UnknownState, BadAction: an entry cannot be read; nothing is reduced then.
            ReduceFailed, StateUnreadable: as `reduce_actions` says.
        """
        actions = [self.actions.read(entry) for entry in entries]
        return reduce_actions(document, actions, registry=self.lattices)

    def binding(self, document: Document) -> Document:
        """Give the parts of a document that bind the sub-agents of who it belongs to, as they stand, read or not."""
        found = ((path, find(document, path, MISSING)) for path in self._binding)
        return apply({}, Patch(tuple(Set(path, value) for path, value in found if value is not MISSING)))

    def register(self, spec: type[StateSpec], *, at: tuple[str | int, ...] | None = None) -> None:
        """Know a typed state, at its own path or at another one that `new_at` writes to.

        Raises:
            BadSpec, NameTaken: the class is declared wrongly, or its name is another's.
        """
        self.actions.register(spec)
        path: tuple[Any, ...] = as_path(at or spec.PATH)
        self.scopes.register(path, spec.SCOPE)
        if spec.BINDS_CHILDREN:
            self._binding[path] = None
        if spec.SCOPE is StateScope.TOOL_CALL:
            path = (*TOOL_CALL_SCOPE, ANY_KEY, *path)
        for name, lattice in spec.LATTICE_FIELDS.items():
            self.lattices.register((*path, name), lattice)
