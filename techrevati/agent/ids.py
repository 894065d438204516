"""Ids that a replay makes again.

A driver that replays a step after a crash derives its ids from the step, so that the replay stores its
messages under the ids the first attempt announced.
"""

import hashlib

from techrevati.agent.threads.ids import uuid7


class DerivedIds:
    """The same ids in the same order for the same seed, as ``<run id>:<step>``, and the same time (Unix ms)."""

    def __init__(self, seed: str, at_ms: int) -> None:
        self._seed, self._at_ms, self._given = seed, at_ms, 0

    def __call__(self) -> str:
        digest = hashlib.blake2b(f"{self._seed}\0{self._given}".encode(), digest_size=8).digest()
        # The count takes the top bits, so that the ids of one step sort in the order they were made.
        noise = (self._given & 0xFFF) << 62 | int.from_bytes(digest, "big") >> 2
        self._given += 1
        return uuid7(self._at_ms, noise)
