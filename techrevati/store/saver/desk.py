"""What both savers know: how to write the next checkpoint, how to read, and what they have seen.

    state ──texts──▶ delta on what is remembered, or whole ──seal──▶ put ──▶ remembered (─▶ squeezed, if it is big)
    get ──"I have …"──▶ nothing sent, or a chain ──open, fold──▶ remembered ──▶ Checkpoint

Does no I/O.  What is remembered is used only if Redis says that it is the last one.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

from techrevati.runtime._timestamp import iso_now
from techrevati.runtime.checkpoint import Checkpoint, _new_id
from techrevati.store.calls import Call
from techrevati.store.saver import calls, json_text
from techrevati.store.saver.calls import Chain
from techrevati.store.saver.delta import diff
from techrevati.store.saver.names import SaverKeys, check_saver, check_thread_name
from techrevati.store.saver.record import View, Written, fold, head, last_of, pack, texts_of
from techrevati.store.saver.squeezing import Big
from techrevati.store.sealing import KeyRing, Sealer

KEY = "idempotency_key"
WHOLE_EVERY = 32
SQUEEZE_FROM = 4 * 1024
"""Bytes from which to compress takes longer than to send: they are sent as they are, and compressed afterwards."""
FORGOTTEN_MS = 86_400_000
"""A deleted thread's numbers and tokens go on for so long."""


@lru_cache(4096)
def _keys(fleet: str, tenant: str, thread: str) -> SaverKeys:
    return SaverKeys(fleet, tenant, check_thread_name(thread))


@dataclass(slots=True)
class Draft:
    """A checkpoint that is about to be put."""

    keys: SaverKeys
    record: Checkpoint
    metadata: bytes
    state: Written
    before: View | None
    key: str
    token: int | None


@dataclass(slots=True)
class Put:
    """What to say, what to remember when it is done, and what may be compressed then."""

    call: Call[int]
    view: View
    big: Big | None


class Desk:
    """Settings and memory of a saver; safe for threads."""

    def __init__(
        self,
        fleet: str,
        tenant: str,
        *,
        ttl: float | None,
        keep: int | None,
        encryption: KeyRing | None,
        max_bytes: int,
        memory: int,
        squeeze_from: int,
    ) -> None:
        check_saver(fleet, tenant)
        if ttl is not None and not 1 <= ttl <= 10 * 366 * 86_400:
            raise ValueError(f"ttl {ttl} s: a thread is kept from 1 s to 10 years, or for ever (None)")
        if keep is not None and keep < 1:
            raise ValueError(f"keep {keep}: at least the last checkpoint is kept; None keeps all")
        self.fleet, self.tenant = fleet, tenant
        self.ttl_ms, self.keep = 0 if ttl is None else round(ttl * 1000), keep or 0
        self.sealer = Sealer(encryption)
        self._max_bytes, self._memory, self._squeeze_from = max_bytes, memory, squeeze_from
        self._views: OrderedDict[str, View] = OrderedDict()
        self._remembered = 0
        self._lock = Lock()

    def keys(self, thread: str) -> SaverKeys:
        return _keys(self.fleet, self.tenant, thread)

    # Writing.

    def draft(
        self,
        thread: str,
        state: Mapping[str, Any],
        parent_id: str | None,
        metadata: Mapping[str, Any] | None,
        token: int | None = None,
    ) -> Draft:
        """Make the record of a put.

        Raises:
            TypeError, ValueError: `state` or `metadata` is not JSON data.
            BadName: the thread id could not be part of a key.
        """
        keys = self.keys(thread)
        before = self.remembered(keys)
        written = texts_of(state)
        known, known_copy = json_text.encode(dict(metadata)) if metadata else (b"{}", {})
        key = known_copy.get(KEY)
        record = Checkpoint(_new_id(), thread, iso_now(), written.copy, parent_id, known_copy)
        return Draft(keys, record, known, written, before, key if isinstance(key, str) else "", token)

    def put(self, draft: Draft, *, whole: bool = False) -> Put:
        """Give the put of a draft.

        Raises:
            PayloadTooLarge: the checkpoint is over the limit.
        """
        record, texts, before = draft.record, draft.state.texts, None if whole else draft.before
        made = View(record.id, 0, record.created_at, record.parent_id, draft.metadata, texts, 0, 0)
        delta = None
        if before is not None and before.number - before.base < WHOLE_EVERY - 1:
            delta = diff(before.texts, texts)
            if delta is not None:
                made.changes = before.changes + delta.size
                if made.changes > made.size:
                    delta, made.changes = None, 0
        after, base = "", None
        if delta is not None and before is not None:
            after, base = before.id, before.base
            made.base = before.base
        plain, context = pack(made, delta, self._max_bytes), draft.keys.clock
        size = sum(map(len, plain))
        big = Big(draft.keys, record.id, plain, size) if size >= self._squeeze_from else None
        body = self.sealer.seal_as_is(plain, context) if big else (self.sealer.seal(b"".join(plain), context),)
        call = calls.put(
            draft.keys,
            id=record.id,
            after=after,
            record=head(record.id, base, sum(map(len, body))),
            body=body,
            key=draft.key,
            token=draft.token,
            ttl_ms=self.ttl_ms,
            keep=self.keep,
        )
        return Put(call, made, big)

    def written(self, keys: SaverKeys, view: View, number: int) -> None:
        view.number, view.base = number, view.base or number
        self._remember(keys, view)

    def squeezed(self, big: Big) -> Call[bool] | None:
        """Compress what was put as it was; None if that does not pay."""
        plain = b"".join(big.plain)
        body = self.sealer.seal(plain, big.keys.clock)
        return calls.squeeze(big.keys, big.id, body) if len(body) < len(plain) * 7 // 8 else None

    # Reading.

    def read(self, keys: SaverKeys, chain: Chain, have: View | None, *, last: bool = False) -> Checkpoint:
        """Give the checkpoint a reply speaks of; the thread's last one is remembered."""
        if not chain.records:
            assert have is not None
            return have.checkpoint_again(keys.thread)
        view = last_of(chain.number, chain.records, self.sealer, keys.clock)
        if last:
            self._remember(keys, view)
        return view.checkpoint(keys.thread)

    def read_page(self, keys: SaverKeys, page: Chain) -> list[Checkpoint]:
        """Give a page's checkpoints, newest first."""
        views = fold(page.sent + len(page.records) - 1, page.records, self.sealer, keys.clock)
        return [view.checkpoint(keys.thread) for view in reversed(views) if view.number >= page.number]

    # Memory.

    def remembered(self, keys: SaverKeys) -> View | None:
        with self._lock:
            view = self._views.get(keys.thread)
            if view is not None:
                self._views.move_to_end(keys.thread)
            return view

    def forget(self, keys: SaverKeys) -> None:
        with self._lock:
            if view := self._views.pop(keys.thread, None):
                self._remembered -= view.size

    def _remember(self, keys: SaverKeys, view: View) -> None:
        with self._lock:
            before = self._views.pop(keys.thread, None)
            self._views[keys.thread] = view
            self._remembered += view.size - (before.size if before else 0)
            while self._remembered > self._memory and self._views:
                _thread, oldest = self._views.popitem(last=False)
                self._remembered -= oldest.size
