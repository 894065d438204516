"""What the state of a thread refuses, and why."""

from collections.abc import Sequence
from typing import Any

from techrevati.agent.state.notation import Path, show
from techrevati.runtime.errors import TechrevatiError


class StateError(TechrevatiError):
    """Something a thread's state refused."""


class BadPath(StateError):
    """What was given as a path is none."""

    def __init__(self, path: Any, rule: str) -> None:
        super().__init__(path, rule)
        self.path, self.rule = path, rule

    def __str__(self) -> str:
        return f"path {self.path!r} is refused: use {self.rule}"


class BadValue(StateError):
    """A value that cannot stand in a JSON document."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"value at {show(self.path)} is not JSON ({self.cause}); fix: dict, list, str, int, float, bool or None"


class PatchRefused(StateError):
    """An operation does not fit the document; nothing of its patch was applied."""


class IndexOutOfBounds(PatchRefused):
    """An array has no such index."""

    def __init__(self, path: Path, index: int, length: int) -> None:
        super().__init__(path, index, length)
        self.path, self.index, self.length = path, index, length

    def __str__(self) -> str:
        return f"index {self.index} is outside the array at {show(self.path)}, which has {self.length}; fix: append"


class TypeMismatch(PatchRefused):
    """The value found is of another kind than the operation needs."""

    def __init__(self, path: Path, needed: str, found: str) -> None:
        super().__init__(path, needed, found)
        self.path, self.needed, self.found = path, needed, found

    def __str__(self) -> str:
        return f"{show(self.path)} is {self.found}, and {self.needed} is needed; fix: set it first"


class AppendRequiresArray(TypeMismatch):
    """`append` found something that is not an array."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(path, "an array", found)
        self.args = (path, found)


class MergeRequiresObject(TypeMismatch):
    """`merge_object` found something that is not an object."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(path, "an object", found)
        self.args = (path, found)


class NumericOperationOnNonNumber(TypeMismatch):
    """`increment` or `decrement` found something that is not a number."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(path, "a number", found)
        self.args = (path, found)


class PathNotFound(PatchRefused):
    """The operation needs a value where there is none."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"nothing stands at {show(self.path)}; fix: set it first"


class LatticeUnreadable(PatchRefused):
    """A value at a merged path is not what its lattice writes."""

    def __init__(self, path: Path, lattice: str, cause: str) -> None:
        super().__init__(path, lattice, cause)
        self.path, self.lattice, self.cause = path, lattice, cause

    def __str__(self) -> str:
        return f"{show(self.path)} cannot be read as {self.lattice}: {self.cause}"


class PatchesConflict(StateError):
    """Two patches of one batch touch the same place; none of the batch was applied."""

    def __init__(self, first: int, second: int, path: Path, kind: str) -> None:
        super().__init__(first, second, path, kind)
        self.first, self.second, self.path, self.kind = first, second, path, kind

    def __str__(self) -> str:
        return (
            f"patches {self.first} and {self.second} both change {show(self.path)} ({self.kind}); "
            "fix: commit them one after the other, or keep what they share in a lattice field"
        )


class NoSuchPatch(StateError):
    """The history does not reach to the patch asked for."""

    def __init__(self, index: int, length: int) -> None:
        super().__init__(index, length)
        self.index, self.length = index, length

    def __str__(self) -> str:
        return f"patch {self.index} is asked for, and the history holds patches 0 to {self.length - 1}"


class BadSpec(StateError):
    """A state class is not declared as the runtime needs it."""

    def __init__(self, spec: str, cause: str) -> None:
        super().__init__(spec, cause)
        self.spec, self.cause = spec, cause

    def __str__(self) -> str:
        return f"state class {self.spec}: {self.cause}"


class WrongScope(StateError):
    """An action was made by the constructor of another scope."""

    def __init__(self, spec: str, scope: str, use: str) -> None:
        super().__init__(spec, scope, use)
        self.spec, self.scope, self.use = spec, scope, use

    def __str__(self) -> str:
        return f"state class {self.spec} has the scope {self.scope}; fix: make its actions by AnyStateAction.{self.use}"


class BadAction(StateError):
    """An action that its state class does not know, or that cannot be written as JSON."""

    def __init__(self, spec: str, cause: str) -> None:
        super().__init__(spec, cause)
        self.spec, self.cause = spec, cause

    def __str__(self) -> str:
        return f"action for state class {self.spec} is refused: {self.cause}"


class StateUnreadable(StateError):
    """What stands in the document is not what the state class declares."""

    def __init__(self, spec: str, path: Path, cause: str) -> None:
        super().__init__(spec, path, cause)
        self.spec, self.path, self.cause = spec, path, cause

    def __str__(self) -> str:
        return f"{show(self.path)} cannot be read as {self.spec}: {self.cause}"


class ReduceFailed(StateError):
    """A state class raised while it took in an action; the document is as before."""

    def __init__(self, spec: str, path: Path, cause: str) -> None:
        super().__init__(spec, path, cause)
        self.spec, self.path, self.cause = spec, path, cause

    def __str__(self) -> str:
        return f"{self.spec}.reduce for {show(self.path)} raised {self.cause}"


class UnknownState(StateError):
    """An intent log names a state class that nobody registered."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return f"state class {self.name!r} is not registered; known: {', '.join(self.known) or 'none'}"


class NameTaken(StateError):
    """Two state classes have one name, so that a stored action could mean either."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"another state class is registered as {self.name!r}; fix: give one of them its own NAME"


class ActorNeeded(StateError):
    """A counted or observed change must say who makes it."""

    def __init__(self, lattice: str) -> None:
        super().__init__(lattice)
        self.lattice = lattice

    def __str__(self) -> str:
        return (
            f"{self.lattice} needs an actor to count this change under; "
            "fix: pass actor=, one of its own per tool call (reduce_actions does, from its actor=)"
        )
