"""Where things stand in a thread's document.

Paths are tuples from end to end, never dotted text, so a key may hold any character, dots included.
Keys that begin with ``__`` are the runtime's.
"""

from collections.abc import Sequence

from techrevati.agent.state.errors import BadPath
from techrevati.agent.state.notation import MAX_DEPTH, Path

RUN: Path = ("__run",)
TOOL_CALL_SCOPE: Path = ("__tool_call_scope",)
TOOL_CALL_STATE: Path = ("tool_call_state",)
"""Below the scope of one call (`call_path`), as `SUSPENDED_CALL` is."""
SUSPENDED_CALL: Path = ("suspended_call",)
STOP_POLICY: Path = ("__kernel", "stop_policy_runtime")
SUB_AGENTS: Path = ("sub_agents",)
PERMISSIONS: Path = ("permissions",)
PERMISSION_POLICY: Path = ("permission_policy",)
REMINDERS: Path = ("reminders",)
SKILLS: Path = ("skills",)
BACKGROUND_TASKS: Path = ("__derived", "background_tasks")

OWN_KEYS = frozenset(path[0] for path in (PERMISSIONS, PERMISSION_POLICY, REMINDERS, SKILLS, SUB_AGENTS))
"""Top-level keys that are the runtime's too, though they do not begin with ``__``: what stands there decides what an
agent may do and is told, so a client that sends a state does not set them."""


def as_path(keys: Sequence[str | int]) -> Path:
    """Give a checked path.

    Raises:
        BadPath: it is text, or a part is neither a key nor an index from 0.
    """
    if isinstance(keys, str):
        raise BadPath(keys, f"a tuple of keys, e.g. {tuple(keys.split('.'))}")
    path = tuple(keys)
    if len(path) > MAX_DEPTH:
        raise BadPath((*path[:3], "…"), f"at most {MAX_DEPTH} keys, not {len(path)}")
    for part in path:
        if isinstance(part, str):
            continue
        if not isinstance(part, int) or isinstance(part, bool) or part < 0:
            raise BadPath(path, "str keys, and int indexes from 0")
    return path


def is_prefix(shorter: Path, longer: Path) -> bool:
    """Say whether `shorter` is `longer` or one of its parents."""
    return longer[: len(shorter)] == shorter


def call_path(call_id: str, below: Path = ()) -> Path:
    """Give the path of a tool call's own state, or of a place below it.

    Raises:
        BadPath: `call_id` is empty.
    """
    if not call_id:
        raise BadPath((*TOOL_CALL_SCOPE, call_id), "the id of the tool call, which is never empty")
    return (*TOOL_CALL_SCOPE, call_id, *below)
