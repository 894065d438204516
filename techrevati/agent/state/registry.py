"""Which places of a document are joined, and how."""

from collections.abc import Iterator
from typing import Any

from techrevati.agent.state.lattice import Lattice, lattice_of
from techrevati.agent.state.notation import Path
from techrevati.agent.state.paths import as_path


class _Any:
    def __repr__(self) -> str:
        return "ANY_KEY"


ANY_KEY: Any = _Any()
"""In a registered path: whatever key stands here, as the id of a tool call."""


class LatticeRegistry:
    """The lattice of each registered path.  Filled when an agent is wired, read by runs."""

    __slots__ = ("_found", "_patterns")

    def __init__(self) -> None:
        self._found: dict[Path, Lattice] = {}
        self._patterns: list[tuple[tuple[Any, ...], Lattice]] = []

    def register(self, path: tuple[Any, ...], lattice: Any) -> None:
        """Join values at `path`; `lattice` is an annotation as ``GSet[str]``, or a `Lattice`.

        Raises:
            TypeError: it is no lattice.
        """
        found = lattice if isinstance(lattice, Lattice) else lattice_of(lattice)
        if found is None:
            raise TypeError(f"{lattice!r} is no lattice: use Flag, MaxReg, MinReg, GCounter, GSet, ORSet or ORMap")
        if ANY_KEY in path:
            self._patterns.append((path, found))
        else:
            self._found[as_path(path)] = found

    def at(self, path: Path) -> Lattice | None:
        """Give the lattice of a path, if one is registered."""
        found = self._found.get(path)
        if found is None and self._patterns:
            return next((lattice for pattern, lattice in self._patterns if _matches(pattern, path)), None)
        return found

    def __iter__(self) -> Iterator[tuple[tuple[Any, ...], Lattice]]:
        yield from self._found.items()
        yield from self._patterns

    def include(self, other: "LatticeRegistry") -> None:
        """Take over everything another registry knows."""
        for path, lattice in other:
            self.register(path, lattice)


def _matches(pattern: tuple[Any, ...], path: Path) -> bool:
    return len(pattern) == len(path) and all(
        mine is ANY_KEY or mine == theirs for mine, theirs in zip(pattern, path, strict=True)
    )


class _Empty(LatticeRegistry):
    """Shared by all who know no lattices, so nobody may add one."""

    def register(self, path: tuple[Any, ...], lattice: Any) -> None:
        raise TypeError("NO_LATTICES is everybody's: make a LatticeRegistry of your own")


NO_LATTICES: LatticeRegistry = _Empty()
"""Nothing is registered here, ever."""
