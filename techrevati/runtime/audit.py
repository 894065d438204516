"""An audit trail that shows tampering: each line carries the hash of all before it.

    event, usage ──▶ {"seq", "at", "kind", "body", "prev", "hash"} per line ──verify──▶ Anchor

Changing, removing, adding or reordering lines breaks the chain.  Cutting off its end does not;
that shows against an `Anchor` (count and last hash) kept elsewhere.  With a `key` the hashes
are HMACs, so somebody who can write the file still cannot forge a chain.

Source: B. Schneier, J. Kelsey, "Secure audit logs to support computer forensics", 1999.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from techrevati.runtime._timestamp import iso_now
from techrevati.runtime.agent_events import AgentEvent
from techrevati.runtime.errors import TechrevatiError
from techrevati.runtime.usage_tracking import UsageSnapshot

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a chain ends: how many lines, and the hash of the last.  Keep it in another place."""

    count: int = 0
    head: str = GENESIS


class AuditBrokenError(TechrevatiError, ValueError):
    """The chain does not hold; `seq` is the line (from 1) where it shows."""

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(seq, problem)
        self.seq, self.problem = seq, problem

    def __str__(self) -> str:
        return f"audit chain broken at line {self.seq}: {self.problem}"


def digest(record: dict[str, Any], key: bytes | None = None) -> str:
    """The hash of a record without its own ``hash``, over canonical JSON."""
    body = {name: value for name, value in record.items() if name != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    return hashlib.sha256(text).hexdigest() if key is None else hmac.new(key, text, hashlib.sha256).hexdigest()


def link(anchor: Anchor, kind: str, body: dict[str, Any], at: str, key: bytes | None = None) -> dict[str, Any]:
    """The next record of a chain that ends at `anchor`."""
    record = {"seq": anchor.count + 1, "at": at, "kind": kind, "body": body, "prev": anchor.head}
    return {**record, "hash": digest(record, key)}


def verify(lines: Iterable[str], *, key: bytes | None = None, anchor: Anchor | None = None) -> Anchor:
    """Check a whole chain; returns where it ends.

    With an `anchor` the chain must reach it (it may go on): without one, a cut-off end cannot show.

    Raises:
        AuditBrokenError: a line was changed, removed, added, moved, or the end is missing.
    """
    end = Anchor()
    reached = anchor is None or anchor == end
    for seq, line in enumerate(lines, start=1):
        end = _follow(end, seq, line, key)
        reached = reached or end == anchor
        if anchor is not None and end.count == anchor.count and end != anchor:
            raise AuditBrokenError(seq, f"hash is {end.head}, the anchor says {anchor.head}")
    if anchor is not None and not reached:
        raise AuditBrokenError(end.count + 1, f"chain ends after {end.count} lines, {anchor.count} were anchored")
    return end


def _follow(end: Anchor, seq: int, line: str, key: bytes | None) -> Anchor:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise AuditBrokenError(seq, "not JSON") from error
    if not isinstance(record, dict) or not isinstance(record.get("hash"), str):
        raise AuditBrokenError(seq, "not a record with a hash")
    if record.get("seq") != seq:
        raise AuditBrokenError(seq, f"carries number {record.get('seq')!r}")
    if record.get("prev") != end.head:
        raise AuditBrokenError(seq, "does not follow the line before it")
    if not hmac.compare_digest(record["hash"], digest(record, key)):
        raise AuditBrokenError(seq, "content does not match its hash")
    return Anchor(seq, record["hash"])


class AuditSink:
    """An event sink and a usage sink that appends a hash chain to a file.  Safe for threads.

    An existing file is verified on opening and continued.  Each line is flushed to the operating
    system, and with `fsync` to the disk, before `emit` and `record` return.

    Raises:
        AuditBrokenError: the existing file does not verify.
    """

    def __init__(self, path: str | Path, *, key: bytes | None = None, fsync: bool = False) -> None:
        self._key, self._fsync, self._lock = key, fsync, threading.Lock()
        self._file = Path(path).open("a+", encoding="utf-8")  # noqa: SIM115 - closed by close()
        try:
            self._file.seek(0)
            self._anchor = verify(self._file, key=key)
        except BaseException:
            self._file.close()
            raise

    @property
    def anchor(self) -> Anchor:
        """Where the chain ends now."""
        return self._anchor

    def emit(self, event: AgentEvent) -> None:
        """Append an event."""
        self._append("event", event.to_dict())

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        """Append the usage of a turn."""
        self._append("usage", {"model": model, "usage": usage.to_dict(), "cost_usd": cost_usd})

    def lines(self) -> Iterator[str]:
        """The chain as it stands in the file."""
        with Path(self._file.name).open(encoding="utf-8") as file:
            yield from file

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _append(self, kind: str, body: dict[str, Any]) -> None:
        with self._lock:
            record = link(self._anchor, kind, body, iso_now(), self._key)
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()
            if self._fsync:
                os.fsync(self._file.fileno())
            self._anchor = Anchor(record["seq"], record["hash"])
