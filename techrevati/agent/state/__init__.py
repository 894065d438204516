"""The state of a thread: one JSON document, changed by patches, read and written through typed states."""

from techrevati.agent.state.conflicts import Conflict, ConflictKind, check_batch, conflicts, refusals
from techrevati.agent.state.document import Document, apply, apply_all, find
from techrevati.agent.state.errors import StateError
from techrevati.agent.state.lattice import Lattice, LatticeValue, lattice_of
from techrevati.agent.state.manager import StateManager
from techrevati.agent.state.notation import Path, show
from techrevati.agent.state.observed import ORMap, ORSet
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
from techrevati.agent.state.paths import as_path, call_path
from techrevati.agent.state.reduction import Reduced, reduce_actions
from techrevati.agent.state.registers import Flag, GCounter, GSet, MaxReg, MinReg
from techrevati.agent.state.registry import NO_LATTICES, LatticeRegistry
from techrevati.agent.state.scope import (
    ScopeRegistry,
    StateScope,
    cleanup_after_call,
    cleanup_for_new_call,
    cleanup_for_next_run,
    cleanup_of_old_calls,
)
from techrevati.agent.state.spec import AnyStateAction, StateSpec, state_at
from techrevati.agent.state.values import Json
from techrevati.agent.state.wiring import ActionRegistry, StateRegistry

__all__ = [
    "NO_LATTICES",
    "ActionRegistry",
    "AnyStateAction",
    "Append",
    "Conflict",
    "ConflictKind",
    "Decrement",
    "Delete",
    "Document",
    "Flag",
    "GCounter",
    "GSet",
    "Increment",
    "Insert",
    "Json",
    "Lattice",
    "LatticeMerge",
    "LatticeRegistry",
    "LatticeValue",
    "MaxReg",
    "MergeObject",
    "MinReg",
    "ORMap",
    "ORSet",
    "Op",
    "Patch",
    "Path",
    "Reduced",
    "Remove",
    "ScopeRegistry",
    "Set",
    "StateError",
    "StateManager",
    "StateRegistry",
    "StateScope",
    "StateSpec",
    "TrackedPatch",
    "apply",
    "apply_all",
    "as_path",
    "call_path",
    "check_batch",
    "cleanup_after_call",
    "cleanup_for_new_call",
    "cleanup_for_next_run",
    "cleanup_of_old_calls",
    "conflicts",
    "find",
    "lattice_of",
    "reduce_actions",
    "refusals",
    "show",
    "state_at",
]
