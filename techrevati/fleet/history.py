"""Loading a thread: from what the grant brought, what this worker remembers, or Redis.

head (version, commit) ── known? ──▶ nothing to read
                       ── older? ──▶ only the versions since
                       ── no ──────▶ the last full state and what follows
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from techrevati.fleet.state import RawState, apply_delta, parse_full
from techrevati.store.aio import AsyncStore
from techrevati.store.keys import PartitionKeys
from techrevati.store.records import Checkpoint, Grant, ThreadHead


@dataclass(slots=True)
class View:
    """A thread at one version: its state and messages as JSON texts, never changed in place."""

    version: int
    commit: str
    spans: str
    stored: int
    """Messages in the thread's list, those of undone turns included."""
    state: RawState
    messages: tuple[str, ...]
    full_bytes: int
    since: int


EMPTY = View(0, "", "0:", 0, {}, (), 0, 0)


def ranges(spans: str, stored: int) -> list[tuple[int, int]]:
    """Give the half-open ranges of the message list that a version shows.

    "0:12,20:" is what stands after a rollback that hid messages 12 to 19.
    """
    found = []
    for span in spans.split(","):
        first, _, end = span.partition(":")
        pair = int(first), int(end) if end else stored
        if pair[0] < pair[1]:
            found.append(pair)
    return found


def fold(state: RawState, entries: Sequence[Checkpoint]) -> tuple[RawState, int, int]:
    """Apply versions in order; gives the state, the bytes of the last full one (0: none) and how many came since."""
    size, since = 0, 0
    for entry in entries:
        since += 1
        if entry.full is not None:
            state, size, since = parse_full(entry.full), len(entry.full), 0
        elif entry.delta is not None:
            state = apply_delta(state, entry.delta)
    return state, size, since


def remembered(view: View, head: ThreadHead, entries: Sequence[Checkpoint]) -> View | None:
    """Bring a remembered view up to the head, or None if it is not on the head's chain."""
    if not entries or entries[0].version != view.version or entries[0].commit != view.commit:
        return None
    commit = view.commit
    for entry in entries[1:]:
        if entry.previous != commit or entry.back_to is not None:
            return None
        commit = entry.commit
    if commit != head.commit or entries[-1].version != head.version:
        return None
    state, size, since = fold(view.state, entries[1:])
    return replace(
        view,
        version=head.version,
        commit=head.commit,
        spans=head.spans,
        state=state,
        full_bytes=size or view.full_bytes,
        since=since if size else view.since + since,
    )


class Threads:
    """The threads a worker remembers between their turns, the latest used kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._views: OrderedDict[tuple[str, str], View] = OrderedDict()
        self.hits = self.loads = 0

    def remember(self, tenant: str, thread: str, view: View) -> None:
        self._views[tenant, thread] = view
        self._views.move_to_end((tenant, thread))
        while len(self._views) > self._limit:
            self._views.popitem(last=False)

    def forget(self, tenant: str, thread: str) -> None:
        self._views.pop((tenant, thread), None)

    async def load(self, store: AsyncStore, keys: PartitionKeys, grant: Grant) -> View:
        """Give the thread of a granted turn at its head."""
        tenant, thread, head = grant.fields["tenant"], grant.fields["thread"], grant.thread
        if head.version == 0:
            return EMPTY
        known = self._views.get((tenant, thread))
        if known is not None and known.version == head.version and known.commit == head.commit:
            self.hits += 1
            return known
        self.loads += 1
        ckpt, messages = keys.checkpoints(tenant, thread), keys.messages(tenant, thread)
        if known is not None and known.version < head.version and known.version > 0:
            found = await store.command("XRANGE", ckpt, f"{known.version}-0", "+")
            if view := remembered(known, head, [Checkpoint.parse(entry) for entry in found]):
                more = (
                    await store.command("LRANGE", messages, known.stored, head.messages - 1)
                    if head.messages > known.stored
                    else []
                )
                return replace(view, stored=head.messages, messages=(*view.messages, *more))
        entries, texts = grant.checkpoints, grant.messages
        if entries is None or texts is None:
            found, texts = await store.commands(
                [("XRANGE", ckpt, f"{head.full}-0", "+"), ("LRANGE", messages, 0, head.messages - 1)]
            )
            entries = [Checkpoint.parse(entry) for entry in found]
        return await self._whole(store, ckpt, head, entries, texts or [])

    async def _whole(
        self, store: AsyncStore, ckpt: str, head: ThreadHead, entries: Sequence[Checkpoint], texts: Sequence[str]
    ) -> View:
        base: RawState = {}
        first = entries[0] if entries else None
        while first is not None and first.back_to is not None:  # "state of k": k may itself be such a version
            if first.back_to == 0:
                break
            found = await store.command("XRANGE", ckpt, f"{first.back_full}-0", f"{first.back_to}-0")
            earlier = [Checkpoint.parse(entry) for entry in found]
            entries = [*earlier, *(entry for entry in entries if entry.back_to is None)]
            first = entries[0] if entries else None
        state, size, since = fold(base, entries)
        shown = tuple(text for start, end in ranges(head.spans, head.messages) for text in texts[start:end])
        return View(head.version, head.commit, head.spans, head.messages, state, shown, size, since)
