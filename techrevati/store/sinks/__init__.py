"""Events and usage on Redis, where the sinks of one process would stand."""

from techrevati.store.sinks.calls import Stored
from techrevati.store.sinks.sinks import Page, RedisEventSink, RedisUsageSink, UsageRecord

__all__ = ["Page", "RedisEventSink", "RedisUsageSink", "Stored", "UsageRecord"]
