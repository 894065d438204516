"""Bytes at rest: compressed when that pays, encrypted when there are keys.

    plain ── zstd from 1 KiB ──▶ AES-GCM under the current key, bound to its place ──▶ flags · key id · nonce · text

The key id stands in front, so that keys can be rotated: new bytes are sealed with the current key, old ones are
opened with the one they name.  `context` is where the bytes stand (a key's name): elsewhere they do not open.
"""

import base64
import binascii
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from techrevati.store.errors import StoreError

COMPRESS_FROM = 1024
SMALL, FAST, LEVEL = 16 * 1024, -3, 1
"""Below so many bytes the time is noticed and the space is not: zstd's faster level; its first one from there on."""
OPENED_MAX = 256 * 1024 * 1024
_COMPRESSED, _ENCRYPTED = 1, 2
_NONCE = 12
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class BadKey(StoreError, ValueError):
    """A key, or its id, that cannot be used."""

    def __init__(self, key_id: str, rule: str) -> None:
        super().__init__(key_id, rule)
        self.key_id, self.rule = key_id, rule

    def __str__(self) -> str:
        return f"encryption key {self.key_id!r} is refused: use {self.rule}"


class UnknownKey(StoreError):
    """The bytes are sealed with a key that this process was not given."""

    def __init__(self, key_id: str, known: tuple[str, ...]) -> None:
        super().__init__(key_id, known)
        self.key_id, self.known = key_id, known

    def __str__(self) -> str:
        has = ", ".join(self.known) or "none"
        return f"sealed with key {self.key_id!r}, this process has {has}; fix: add that key to the ring"


class WrongKey(StoreError):
    """The key of that id does not open the bytes: another key has its id, or they were altered or moved."""

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f"key {self.key_id!r} does not open what names it; fix: give the ring the key that wrote it"


class SealBroken(StoreError):
    """Bytes that are not as they were written."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        return f"stored bytes cannot be opened: {self.cause}"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys of 16, 24 or 32 bytes by id; the current one seals."""

    current: str
    keys: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if self.current not in self.keys:
            raise BadKey(self.current, f"one of the ring as the current key: {', '.join(self.keys)}")
        for key_id, key in self.keys.items():
            if not _ID.fullmatch(key_id):
                raise BadKey(key_id, "an id of 1-64 of A-Z a-z 0-9 _ . -")
            if len(key) not in (16, 24, 32):
                raise BadKey(key_id, "16, 24 or 32 random bytes")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "id:base64,id:base64"; the first is the current one."""
        keys = dict[str, bytes]()
        for part in text.split(","):
            key_id, _, encoded = part.strip().partition(":")
            try:
                keys[key_id] = base64.b64decode(encoded, validate=True)
            except binascii.Error as error:
                raise BadKey(key_id, "base64 of 16, 24 or 32 random bytes") from error
        return cls(next(iter(keys)), keys)


class Sealer:
    """Seals and opens; safe for threads."""

    def __init__(self, ring: KeyRing | None = None, *, compress_from: int = COMPRESS_FROM) -> None:
        self._ring, self._compress_from = ring, compress_from
        self._ciphers = {key_id: AESGCM(key) for key_id, key in ring.keys.items()} if ring else {}
        self._local = threading.local()  # a zstd context serves one thread at a time

    def seal(self, plain: bytes, context: str) -> bytes:
        """Give bytes to store; `context` has to be said again to open them."""
        flags, body = 0, plain
        if len(plain) >= self._compress_from:
            smaller = self._compressor(len(plain)).compress(plain)
            if len(smaller) < len(plain):
                flags, body = _COMPRESSED, smaller
        return self._close(flags, body, context)

    def seal_as_is(self, plain: Sequence[bytes], context: str) -> Sequence[bytes]:
        """Give bytes to store without compressing them; in pieces, as they came, if there are no keys."""
        return (b"\0", *plain) if self._ring is None else (self._close(0, b"".join(plain), context),)

    def _close(self, flags: int, body: bytes, context: str) -> bytes:
        if self._ring is None:
            return bytes((flags,)) + body
        key_id, nonce = self._ring.current.encode(), os.urandom(_NONCE)
        head = bytes((flags | _ENCRYPTED, len(key_id))) + key_id
        text = self._ciphers[self._ring.current].encrypt(nonce, body, head + context.encode())
        return head + nonce + text

    def open(self, sealed: bytes, context: str) -> bytes:
        """Give back what was sealed.

        Raises:
            UnknownKey, WrongKey: naming the key's id.
            SealBroken: the bytes are not ours, or cut.
        """
        if not sealed or sealed[0] > _COMPRESSED | _ENCRYPTED:
            raise SealBroken("they do not begin as ours do")
        flags, body = sealed[0], sealed[1:]
        if flags & _ENCRYPTED:
            body = self._decrypt(sealed, context)
        if flags & _COMPRESSED:
            try:
                size = zstandard.get_frame_parameters(body).content_size
                if not 0 <= size <= OPENED_MAX:
                    raise SealBroken(f"they would unfold to {size:,} bytes, over {OPENED_MAX:,}")
                return self._decompressor().decompress(body)
            except zstandard.ZstdError as error:
                raise SealBroken(str(error)) from error
        return body

    def _decrypt(self, sealed: bytes, context: str) -> bytes:
        end = 2 + (sealed[1] if len(sealed) > 1 else 0)
        if len(sealed) < end + _NONCE:
            raise SealBroken("they are cut short")
        head, nonce, text = sealed[:end], sealed[end : end + _NONCE], sealed[end + _NONCE :]
        key_id = head[2:].decode("utf-8", "replace")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnknownKey(key_id, tuple(self._ciphers))
        try:
            return cipher.decrypt(nonce, text, head + context.encode())
        except InvalidTag:
            raise WrongKey(key_id) from None

    def _compressor(self, size: int) -> zstandard.ZstdCompressor:
        made: tuple[zstandard.ZstdCompressor, zstandard.ZstdCompressor] | None
        made = getattr(self._local, "compressors", None)
        if made is None:
            made = zstandard.ZstdCompressor(level=FAST), zstandard.ZstdCompressor(level=LEVEL)
            self._local.compressors = made
        return made[size >= SMALL]

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        made: zstandard.ZstdDecompressor | None = getattr(self._local, "decompressor", None)
        if made is None:
            made = self._local.decompressor = zstandard.ZstdDecompressor()
        return made
