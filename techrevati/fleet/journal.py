"""What a turn has done so far, so that its next attempt need not do it again.

    model answer, pause, note ──keep──▶ unwritten ──with the next step, retry, park or drain──▶ journal
    step ──begin (once), end──▶ journal

The journal is the turn's: its commit deletes it.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from techrevati.fleet.codec import encode
from techrevati.store.records import InboxEntry, decode_json

Policy = Literal["rerun", "once"]


class Lines(Protocol):
    """How a running turn reaches the store; the engine's side of `Turn`."""

    async def step_begin(self, key: str, policy: str, journal: list[tuple[str, str]]) -> str | None: ...

    async def step_end(self, journal: list[tuple[str, str]]) -> str: ...

    async def mail(self) -> list[InboxEntry]: ...

    def delta(self, kind: str, data: str) -> None: ...


class Journal:
    """One turn's journal: name -> JSON text."""

    def __init__(self, stored: Mapping[str, str], lines: Lines, limit: int) -> None:
        self._known = {key[2:]: text for key, text in stored.items() if key.startswith("e:")}
        self._lines, self._limit = lines, limit
        self._unwritten: list[tuple[str, str]] = []
        self.ordinal = 0

    def key(self, kind: str, body: Any) -> str:
        """Name the turn's next call by its order and its arguments: what runs again gets the same name."""
        self.ordinal += 1
        digest = hashlib.blake2b(msgspec.json.encode(body, enc_hook=repr), digest_size=6).hexdigest()
        return f"{kind}:{self.ordinal}:{digest}"

    def get(self, key: str) -> str | None:
        return self._known.get(key)

    def keep(self, key: str, text: str) -> None:
        """Note what the turn's next step, retry, park or drain carries to the store."""
        self._known[key] = text
        self._unwritten.append((key, text))

    def unwritten(self) -> list[tuple[str, str]]:
        """Give what no step has carried to the store yet."""
        return list(self._unwritten)

    async def step(self, key: str, fn: Callable[[], Any], policy: Policy) -> Any:
        """Do it, unless it was done; see `Turn.step`."""
        if policy not in ("rerun", "once"):
            raise ValueError(f"policy {policy!r} of step {key!r} is refused: use 'rerun' or 'once'")
        name = f"step:{key}"
        known = self._known.get(name)
        if known is None and policy == "once":
            known = await self._lines.step_begin(name, policy, self._take())
        if known is None:
            value = fn()
            if inspect.isawaitable(value):
                value = await value
            text = encode(value, f"result of step {key!r}", self._limit)
            known = await self._lines.step_end([*self._take(), (name, text)])
        self._known[name] = known
        return decode_json(known)

    def _take(self) -> list[tuple[str, str]]:
        taken, self._unwritten = self._unwritten, []
        return taken
