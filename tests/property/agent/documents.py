"""Documents and patches to draw from: few keys, so that operations meet."""

from typing import Any

from hypothesis import strategies as st

from techrevati.agent.state import (
    Append,
    Decrement,
    Delete,
    Increment,
    Insert,
    LatticeMerge,
    MergeObject,
    Op,
    Patch,
    Path,
    Remove,
    Set,
)

KEYS = st.sampled_from(["a", "b", "c.d"])
PATHS: st.SearchStrategy[Path] = st.lists(st.one_of(KEYS, KEYS, st.integers(0, 2)), min_size=1, max_size=3).map(tuple)
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, 2.5]), st.sampled_from(["", "x", "ü"])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(KEYS, VALUES, max_size=3)
AMOUNTS = st.one_of(st.integers(-5, 5), st.sampled_from([0.5, -1.25]))
OPS: st.SearchStrategy[Op] = st.one_of(
    st.builds(Set, PATHS, VALUES),
    st.builds(Set, PATHS, VALUES),
    st.builds(Delete, PATHS),
    st.builds(Append, PATHS, VALUES),
    st.builds(MergeObject, PATHS, OBJECTS),
    st.builds(Increment, PATHS, AMOUNTS),
    st.builds(Decrement, PATHS, AMOUNTS),
    st.builds(Insert, PATHS, VALUES, st.integers(0, 3)),
    st.builds(Remove, PATHS, VALUES),
    st.builds(LatticeMerge, PATHS, VALUES),
)
EASY_OPS: st.SearchStrategy[Op] = st.one_of(st.builds(Set, PATHS, VALUES), st.builds(Delete, PATHS))
PATCHES: st.SearchStrategy[Patch] = st.lists(OPS, max_size=5).map(lambda ops: Patch(tuple(ops)))
