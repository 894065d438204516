"""Checkpoints on Redis: `RedisSaver` where a saver of one process would stand."""

from techrevati.store.durability import Durability, DurabilityUnknown
from techrevati.store.saver.saver import AsyncRedisSaver, RedisSaver
from techrevati.store.sealing import BadKey, KeyRing, SealBroken, UnknownKey, WrongKey

__all__ = [
    "AsyncRedisSaver",
    "BadKey",
    "Durability",
    "DurabilityUnknown",
    "KeyRing",
    "RedisSaver",
    "SealBroken",
    "UnknownKey",
    "WrongKey",
]
