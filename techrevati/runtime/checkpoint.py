"""Checkpoints: the state from which a thread resumes, and where it is kept."""

from techrevati.runtime._checkpoints import (
    Checkpoint,
    CheckpointSaver,
    Claim,
    Done,
    Granted,
    Held,
    KeyedCheckpointSaver,
    StaleClaimError,
    _new_id,
)
from techrevati.runtime._memory_saver import InMemorySaver
from techrevati.runtime._sqlite_saver import SqliteSaver

__all__ = [
    "Checkpoint",
    "CheckpointSaver",
    "Claim",
    "Done",
    "Granted",
    "Held",
    "InMemorySaver",
    "KeyedCheckpointSaver",
    "SqliteSaver",
    "StaleClaimError",
    "_new_id",
]
