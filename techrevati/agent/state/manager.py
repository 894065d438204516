"""The state of one thread, held by one process: committed patch by patch, with its history to go back in."""

from collections.abc import Sequence
from threading import Lock
from typing import Any

from techrevati.agent.state.conflicts import check_batch
from techrevati.agent.state.document import Document, apply, apply_all
from techrevati.agent.state.errors import NoSuchPatch
from techrevati.agent.state.notation import Path
from techrevati.agent.state.patch import Patch, TrackedPatch
from techrevati.agent.state.registry import LatticeRegistry
from techrevati.agent.state.values import checked

AnyPatch = Patch | TrackedPatch


class StateManager:
    """Safe for threads and tasks alike."""

    def __init__(self, initial: Document | None = None, *, registry: LatticeRegistry | None = None) -> None:
        self._base: Document = checked(initial or {})
        self._document: Document = self._base
        self._history: list[AnyPatch] = []
        self._registry = LatticeRegistry()
        if registry is not None:
            self._registry.include(registry)
        self._lock = Lock()

    @property
    def document(self) -> Document:
        """The state as it stands; to be read only."""
        return self._document

    @property
    def history(self) -> tuple[AnyPatch, ...]:
        return tuple(self._history)

    def register_lattice(self, lattice: Any, path: Path) -> None:
        """Join values at `path` from now on; `lattice` is an annotation as ``GSet[str]``."""
        with self._lock:
            self._registry.register(path, lattice)

    def preview_patch(self, patch: AnyPatch) -> Document:
        """Give the state as it would be; nothing changes."""
        return apply(self._document, patch, self._registry)

    def commit(self, patch: AnyPatch) -> Document:
        """Apply a patch and remember it.

        Raises:
            PatchRefused: it does not fit; nothing has changed.
        """
        return self._commit((patch,))

    def commit_batch(self, patches: Sequence[AnyPatch]) -> Document:
        """Apply patches that were made side by side, all of them or none.

        Raises:
            PatchesConflict: two of them touch one place.
            PatchRefused: one does not fit.
        """
        check_batch(patches, self._registry)
        return self._commit(patches)

    def _commit(self, patches: Sequence[AnyPatch]) -> Document:
        with self._lock:
            self._document = apply_all(self._document, patches, self._registry)
            self._history.extend(patches)
            return self._document

    def replay_to(self, index: int) -> Document:
        """Give the state after patches 0 to `index` of the history, that one included.

        Raises:
            NoSuchPatch: the history has no such patch.
        """
        with self._lock:
            if not 0 <= index < len(self._history):
                raise NoSuchPatch(index, len(self._history))
            return apply_all(self._base, self._history[: index + 1], self._registry)

    def prune_history(self, keep_last: int) -> int:
        """Fold all but the last patches into the state the history starts from; gives how many were folded."""
        if keep_last < 0:
            raise ValueError(f"keep_last {keep_last} is refused: use 0 or more")
        with self._lock:
            folded = max(0, len(self._history) - keep_last)
            self._base = apply_all(self._base, self._history[:folded], self._registry)
            del self._history[:folded]
            return folded
