"""What changed between two states, exactly: by top-level key, and within a key the text that is new.

    {"messages": […, old], "n": 1} ──▶ {"messages": […, old, new], "n": 2}
    changed  messages: (bytes kept in front, bytes kept behind, text between) · n: whole

Works on JSON texts, so applying it gives back the very bytes.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

Texts = dict[str, bytes]
"""Top-level key -> JSON text, in order."""

_WORTH = 256  # bytes: shorter texts are written whole
_GRAIN = 64  # bytes: what two texts share is found to this
_FASTER = 8  # so much more is compared each time, from one grain on: texts that share nothing cost nothing


class Splice(msgspec.Struct, array_like=True, frozen=True):
    """Keep `front` and `back` bytes of the old text around `text`."""

    front: int
    back: int
    text: bytes


class Delta(msgspec.Struct, array_like=True, frozen=True):
    """Keys written whole, keys changed within, keys gone."""

    whole: dict[str, bytes]
    within: dict[str, Splice]
    gone: list[str]

    @property
    def size(self) -> int:
        return sum(map(len, self.whole.values())) + sum(len(splice.text) for splice in self.within.values())


def common_prefix(one: bytes, other: bytes) -> int:
    """Give how many bytes two texts share in front, or a few less: longer and longer parts, then halves."""
    low, high, step, most = 0, 0, _GRAIN, min(len(one), len(other))
    while one[low:high] == other[low:high]:
        if high == most:
            return most
        low, high, step = high, min(high + step, most), step * _FASTER
    while high - low > _GRAIN:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def common_suffix(one: bytes, other: bytes, most: int) -> int:
    """Give how many of the last `most` bytes two texts share, or a few less."""
    low, high, step = 0, 0, _GRAIN
    end, oend = len(one), len(other)
    while one[end - high : end - low] == other[oend - high : oend - low]:
        if high == most:
            return most
        low, high, step = high, min(high + step, most), step * _FASTER
    while high - low > _GRAIN:
        middle = (low + high) // 2
        if one[end - middle : end - low] == other[oend - middle : oend - low]:
            low = middle
        else:
            high = middle
    return low


def splice_of(before: bytes, text: bytes) -> Splice | None:
    """Give what makes a text of the one before; None if it is better written whole."""
    if min(len(before), len(text)) < _WORTH:
        return None
    front = common_prefix(before, text)
    back = common_suffix(before, text, min(len(before), len(text)) - front)
    if front + back < len(text) // 4:
        return None
    return Splice(front, back, text[front : len(text) - back])


def diff(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> Delta | None:
    """Give what makes `new` of `old`; None if the keys that stay are in another order: write it whole then."""
    stay = [key for key in old if key in new]
    if stay != list(new)[: len(stay)]:
        return None
    whole, within = {}, {}
    for key, text in new.items():
        before = old.get(key)
        if before == text:
            continue
        splice = None if before is None else splice_of(before, text)
        if splice is None:
            whole[key] = text
        else:
            within[key] = splice
    return Delta(whole, within, [key for key in old if key not in new])


def _cut(pieces: Sequence[memoryview], size: int) -> list[memoryview]:
    """Give the first `size` bytes of a text in pieces."""
    kept: list[memoryview] = []
    for piece in pieces:
        if size <= len(piece):
            return [*kept, piece[:size]] if size else kept
        kept.append(piece)
        size -= len(piece)
    return kept


def _cut_back(pieces: Sequence[memoryview], size: int) -> list[memoryview]:
    """Give the last `size` bytes of a text in pieces."""
    kept: list[memoryview] = []
    for piece in reversed(pieces):
        if size <= len(piece):
            return [piece[len(piece) - size :], *reversed(kept)] if size else kept[::-1]
        kept.append(piece)
        size -= len(piece)
    return kept[::-1]


def apply_all(old: Mapping[str, bytes], deltas: Iterable[Delta]) -> Texts:
    """Make the texts after many deltas; one that was changed often is put together once."""
    new: dict[str, bytes | list[memoryview]] = dict(old)
    for delta in deltas:
        for key in delta.gone:
            del new[key]
        for key, splice in delta.within.items():
            before = new[key]
            pieces = before if isinstance(before, list) else [memoryview(before)]
            new[key] = [*_cut(pieces, splice.front), memoryview(splice.text), *_cut_back(pieces, splice.back)]
        new.update(delta.whole)
    return {key: b"".join(text) if isinstance(text, list) else text for key, text in new.items()}


def apply(old: Mapping[str, bytes], delta: Delta) -> Texts:
    """Make the new texts of the old ones."""
    new = dict(old)
    for key in delta.gone:
        del new[key]
    for key, splice in delta.within.items():
        before = old[key]
        new[key] = before[: splice.front] + splice.text + before[len(before) - splice.back :]
    new.update(delta.whole)
    return new
