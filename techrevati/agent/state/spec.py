"""Typed state: a class that says where its values stand, how long they live, and how actions change them.

    class Cart(StateSpec):
        PATH = ("cart",)
        ACTION = AddItem | Empty
        items: list[str] = []
        seen: GSet[str] = field(default_factory=GSet)

        def reduce(self, action): ...

An action is turned into JSON when it is made: that JSON is what reduces, and what the intent log keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeVar, get_type_hints

import msgspec

from techrevati.agent.state.document import MISSING, Document, find
from techrevati.agent.state.errors import BadAction, BadPath, BadSpec, BadValue, StateUnreadable, WrongScope
from techrevati.agent.state.lattice import Lattice, LatticeValue, bind, lattice_of, write
from techrevati.agent.state.notation import Path
from techrevati.agent.state.paths import as_path, call_path
from techrevati.agent.state.scope import StateScope
from techrevati.agent.state.values import Json, checked

S = TypeVar("S", bound="StateSpec")


class StateSpec(msgspec.Struct, kw_only=True):
    """Base of typed states: fields with defaults, changed only by `reduce`.

    Attributes:
        PATH: Where the state stands; for the scope `tool_call`, below the scope of its call.
        SCOPE: How long it lives.
        ACTION: Type of its actions, whatever msgspec can read: a Struct, a union of tagged Structs, str, ….
        NAME: What the intent log calls the class; its own name, if not said.
        BINDS_CHILDREN: It goes along with every start of a sub-agent, to be read there in `ctx.above`.
        LATTICE_FIELDS: Fields that join with what others wrote at the same time.  Found by annotation.
    """

    PATH: ClassVar[Path]
    SCOPE: ClassVar[StateScope] = StateScope.THREAD
    ACTION: ClassVar[Any] = Any
    NAME: ClassVar[str] = ""
    BINDS_CHILDREN: ClassVar[bool] = False
    LATTICE_FIELDS: ClassVar[Mapping[str, Lattice]] = {}

    def reduce(self, action: Any) -> None:
        """Take in one action, by changing this object."""
        raise NotImplementedError

    @classmethod
    def check(cls) -> None:
        """See once that the class is declared as the runtime needs it, and find its lattice fields.

        Raises:
            BadSpec: naming what is wrong.
        """
        if "_checked" in cls.__dict__:
            return
        path = getattr(cls, "PATH", None)
        try:
            if path is None or not as_path(path) or not isinstance(path[0], str):
                raise BadSpec(cls.__name__, 'it needs a PATH, as ("cart",)')
        except BadPath as error:
            raise BadSpec(cls.__name__, str(error)) from error
        if taken := sorted({"bind", "check", "read", "reduce", "write"} & set(cls.__struct_fields__)):
            raise BadSpec(cls.__name__, f"fields that hide methods of every state: {', '.join(taken)}")
        if cls.BINDS_CHILDREN and cls.SCOPE is StateScope.TOOL_CALL:
            raise BadSpec(cls.__name__, "BINDS_CHILDREN is for states of a thread or a run, not of a call")
        if cls.reduce is StateSpec.reduce:
            raise BadSpec(cls.__name__, "it needs a reduce(self, action)")
        try:
            fields = msgspec.structs.fields(cls)
            hints = get_type_hints(cls)
            found = {field.name: lattice_of(hints[field.name]) for field in fields}
        except NameError as error:
            raise BadSpec(cls.__name__, f"{error}; fix: define what it is annotated with in its module") from error
        required = [field.name for field in fields if field.required]
        if required:
            raise BadSpec(cls.__name__, f"fields without a default: {', '.join(required)}")
        if "NAME" not in cls.__dict__:
            cls.NAME = cls.__name__
        cls.LATTICE_FIELDS = {name: lattice for name, lattice in found.items() if lattice is not None}
        cls._checked = True  # type: ignore[attr-defined]

    @classmethod
    def read(cls, stored: Json, path: Path = ()) -> Self:
        """Give the state of stored JSON; None and absent fields give defaults.

        Raises:
            StateUnreadable: naming `path`.
        """
        cls.check()
        if stored is None or stored is MISSING:
            return cls()
        try:
            return msgspec.convert(stored, cls, dec_hook=_read_lattice)
        except (ValueError, TypeError, AttributeError) as error:
            raise StateUnreadable(cls.__name__, path or cls.PATH, str(error)) from error

    def write(self) -> dict[str, Json]:
        """Give the JSON of the state: every field, but for optional ones that are None.

        Raises:
            BadValue: a field holds what is not JSON.
        """
        cls = type(self)
        written: dict[str, Json] = {}
        for name in cls.__struct_fields__:
            value = getattr(self, name)
            if name in cls.LATTICE_FIELDS:
                written[name] = write(value)
            elif value is msgspec.UNSET or (value is None and name in _optional(cls)):
                continue
            else:
                written[name] = _plain(value, (*cls.PATH, name))
        return written

    def bind(self, actor: str) -> None:
        """Count this object's changes to lattice fields under `actor`."""
        for name in type(self).LATTICE_FIELDS:
            bind(getattr(self, name), actor)


_optionals: dict[type[StateSpec], frozenset[str]] = {}


def _optional(cls: type[StateSpec]) -> frozenset[str]:
    """Give the fields that are None when absent, so that None need not be stored."""
    if cls not in _optionals:
        _optionals[cls] = frozenset(field.name for field in msgspec.structs.fields(cls) if field.default is None)
    return _optionals[cls]


def _read_lattice(annotation: Any, stored: Any) -> Any:
    lattice = lattice_of(annotation)
    if lattice is None:
        raise TypeError(f"{annotation!r} is neither JSON nor a lattice")
    return lattice.read(stored)


def _write_lattice(value: Any) -> Any:
    if isinstance(value, LatticeValue):
        return value.write()
    raise TypeError(f"a {type(value).__name__}")


def _plain(value: Any, path: Path) -> Json:
    try:
        return checked(msgspec.to_builtins(value, str_keys=True, enc_hook=_write_lattice), path)
    except (TypeError, RecursionError) as error:
        raise BadValue(path, str(error)) from error


def state_at(document: Document, spec: type[S], *, path: Path | None = None, call_id: str | None = None) -> S | None:
    """Read a typed state: at its own path, at another (`path`), or of a tool call; None where none was written.

    Raises:
        StateUnreadable: what stands there is not the state.
        WrongScope: a call-scoped state without `call_id`, or another with one.
    """
    where = _place(spec, path or spec.PATH, call_id)
    stored = find(document, where, None)
    return None if stored is None else spec.read(stored, where)


def _place(spec: type[StateSpec], base: Path, call_id: str | None) -> Path:
    spec.check()
    if (spec.SCOPE is StateScope.TOOL_CALL) is (call_id is None):
        raise WrongScope(spec.__name__, spec.SCOPE, "new_for_call" if call_id is None else "new")
    return base if call_id is None else call_path(call_id, base)


@dataclass(frozen=True, slots=True)
class AnyStateAction:
    """An action on a typed state, ready to be reduced and logged.  Made by `new`, `new_at` or `new_for_call`.

    Attributes:
        base_path: Where the state stands, without the scope of a call.
        payload: The action as JSON.
        actor: Who acts, for counters and observed sets; `reduce_actions` fills it in.
    """

    spec: type[StateSpec]
    base_path: Path
    payload: Json
    call_id: str | None = None
    actor: str | None = None

    @classmethod
    def new(cls, spec: type[StateSpec], action: Any) -> Self:
        """Make an action on a thread- or run-scoped state.

        Raises:
            WrongScope: `spec` is call-scoped.
            BadAction: the state does not know such an action.
        """
        return cls._made(spec, spec.PATH, action, None, "new_for_call")

    @classmethod
    def new_at(cls, spec: type[StateSpec], path: Path, action: Any) -> Self:
        """Make an action on a state of this type that stands at another path; else as `new`."""
        return cls._made(spec, as_path(path), action, None, "new_for_call")

    @classmethod
    def new_for_call(cls, spec: type[StateSpec], action: Any, call_id: str) -> Self:
        """Make an action on the state of one tool call.

        Raises:
            WrongScope: `spec` is not call-scoped.
            BadAction: the state does not know such an action.
        """
        return cls._made(spec, spec.PATH, action, call_id, "new")

    @classmethod
    def _made(cls, spec: type[StateSpec], base: Path, action: Any, call_id: str | None, other: str) -> Self:
        spec.check()
        if (spec.SCOPE is StateScope.TOOL_CALL) is (call_id is None):
            raise WrongScope(spec.__name__, spec.SCOPE, other)
        if call_id is not None:
            call_path(call_id)
        try:
            payload = checked(msgspec.to_builtins(action, str_keys=True, enc_hook=_write_lattice))
        except (TypeError, BadValue, RecursionError) as error:
            raise BadAction(spec.__name__, str(error)) from error
        made = cls(spec, base, payload, call_id)
        made.action()
        return made

    @property
    def path(self) -> Path:
        """Where the state stands in the document."""
        return self.base_path if self.call_id is None else call_path(self.call_id, self.base_path)

    @property
    def scope(self) -> StateScope:
        return self.spec.SCOPE

    def action(self) -> Any:
        """Give the action, read from its JSON.

        Raises:
            BadAction: it is none of the state's.
        """
        try:
            return msgspec.convert(self.payload, self.spec.ACTION, dec_hook=_read_lattice)
        except (ValueError, TypeError) as error:
            raise BadAction(self.spec.__name__, str(error)) from error

    def by(self, actor: str) -> "AnyStateAction":
        """Give the same action, done by `actor` if nobody is named yet."""
        return self if self.actor else replace(self, actor=actor)

    def entry(self) -> dict[str, Json]:
        """Give what the intent log keeps of the action."""
        entry: dict[str, Json] = {
            "state_type_name": self.spec.NAME,
            "base_path": list(self.base_path),
            "scope": self.scope.value,
            "payload": self.payload,
        }
        if self.call_id is not None:
            entry["call_id_override"] = self.call_id
        if self.actor is not None:
            entry["actor"] = self.actor
        return entry
